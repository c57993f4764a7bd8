module git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index

go 1.25.0

require (
	git.anomalous.dev/alphacentri/scoutfs-notify v0.0.0-00010101000000-000000000000
	golang.org/x/sys v0.46.0
)

replace git.anomalous.dev/alphacentri/scoutfs-notify => ../..
