// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"errors"
	"io"
	"time"
	"unicode/utf8"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/names"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// jsonPrinter prints JSON Lines. The order of the types' fields is that of the output.
type jsonPrinter struct {
	enc   *json.Encoder
	names asked
}

func newJSONPrinter(w io.Writer, a asked) *jsonPrinter {
	e := json.NewEncoder(printableJSON{w})
	e.SetEscapeHTML(false)
	return &jsonPrinter{e, a}
}

// stamp is a time with all its digits, so that times sort as texts.
type stamp time.Time

func (s stamp) MarshalText() ([]byte, error) {
	return time.Time(s).UTC().AppendFormat(nil, isoTime), nil
}

// control is what the objects for control records begin with.
type control struct {
	Type   notify.Type `json:"type"`
	TimeNS uint64      `json:"time_ns"`
}

func newControl(typ notify.Type, t time.Time) control { return control{typ, uint64(t.UnixNano())} }

// jsonPath is a path in an object.
type jsonPath struct {
	Path  *string `json:"path,omitempty"`
	Bytes []byte  `json:"path_b64,omitempty"`   // the same if it is not UTF-8
	Error string  `json:"path_error,omitempty"` // why there is none
}

// newJSONPath returns a path that can be found in an object.
func newJSONPath(p names.Path) jsonPath {
	switch {
	case errors.Is(p.Err, notify.ErrUnlinked):
		return jsonPath{Error: "unlinked"}
	case errors.Is(p.Err, names.ErrUnknown), errors.Is(p.Err, errNotRecorded):
		return jsonPath{Error: "unknown"}
	case p.Err != nil:
		return jsonPath{Error: p.Err.Error()}
	case !utf8.ValidString(p.Text):
		return jsonPath{Path: &p.Text, Bytes: []byte(p.Text)}
	}
	return jsonPath{Path: &p.Text}
}

func (p *jsonPrinter) print(ev notify.Event) error {
	switch ev := ev.(type) {
	case *notify.Record:
		return p.record(ev)
	case *notify.Hello:
		return p.enc.Encode(struct {
			control
			*notify.Hello
			Time        stamp `json:"time"`
			DaemonStart stamp `json:"daemon_start"`
			ReaderStart stamp `json:"reader_start"`
		}{newControl(notify.TypeHello, ev.Time), ev, stamp(ev.Time), stamp(ev.DaemonStart), stamp(ev.ReaderStart)})
	case *notify.Lost:
		return p.enc.Encode(struct {
			control
			*notify.Lost
			Time stamp `json:"time"`
		}{newControl(notify.TypeLost, ev.Time), ev, stamp(ev.Time)})
	case *notify.Idle:
		return p.enc.Encode(struct {
			control
			*notify.Idle
			Time stamp `json:"time"`
		}{newControl(notify.TypeIdle, ev.Time), ev, stamp(ev.Time)})
	case *notify.End:
		return p.enc.Encode(struct {
			control
			*notify.End
			Time stamp  `json:"time"`
			Code uint32 `json:"code"`
		}{newControl(notify.TypeEnd, ev.Time), ev, stamp(ev.Time), uint32(ev.Reason)})
	case *notify.Waiting:
		return p.enc.Encode(struct {
			Type  string `json:"type"`
			Error string `json:"error"`
		}{"waiting", ev.Err.Error()})
	}
	return nil
}

func (p *jsonPrinter) record(r *notify.Record) error {
	object := struct {
		*notify.Record
		Time      stamp  `json:"time"`
		FlagNames string `json:"open_flag_names"`
		User      string `json:"user,omitempty"`
		Group     string `json:"group,omitempty"`
		Command   string `json:"command,omitempty"`
		jsonPath
	}{Record: r, Time: stamp(r.Time()), FlagNames: flagNames(r.OpenFlags)}
	if p.names.names {
		object.User, object.Group, object.Command = p.names.user(r.UID), p.names.group(r.GID), p.names.command(r)
	}
	if p.names.paths {
		object.jsonPath = newJSONPath(p.names.where(r))
	}
	return p.enc.Encode(object)
}
