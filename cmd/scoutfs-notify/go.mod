module git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify

go 1.25.0

require (
	git.anomalous.dev/alphacentri/scoutfs-notify v0.0.0-00010101000000-000000000000
	golang.org/x/sys v0.43.0
)

require github.com/klauspost/compress v1.18.4

replace git.anomalous.dev/alphacentri/scoutfs-notify => ../..
