module git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify

go 1.25.0

require (
	charm.land/bubbletea/v2 v2.0.9
	git.anomalous.dev/alphacentri/scoutfs-notify v0.0.0-00010101000000-000000000000
	github.com/charmbracelet/x/ansi v0.11.7
	github.com/klauspost/compress v1.18.4
	golang.org/x/sys v0.46.0
)

require (
	github.com/charmbracelet/colorprofile v0.4.3 // indirect
	github.com/charmbracelet/ultraviolet v0.0.0-20260703014108-f5a850f9c2b7 // indirect
	github.com/charmbracelet/x/term v0.2.2 // indirect
	github.com/charmbracelet/x/termios v0.1.1 // indirect
	github.com/charmbracelet/x/windows v0.2.2 // indirect
	github.com/clipperhouse/displaywidth v0.11.0 // indirect
	github.com/clipperhouse/uax29/v2 v2.7.0 // indirect
	github.com/lucasb-eyer/go-colorful v1.4.0 // indirect
	github.com/mattn/go-runewidth v0.0.23 // indirect
	github.com/muesli/cancelreader v0.2.2 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/xo/terminfo v0.0.0-20220910002029-abceb7e1c41e // indirect
	golang.org/x/sync v0.21.0 // indirect
)

replace git.anomalous.dev/alphacentri/scoutfs-notify => ../..
