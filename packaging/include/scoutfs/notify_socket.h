/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
#ifndef _SCOUTFS_NOTIFY_SOCKET_H_
#define _SCOUTFS_NOTIFY_SOCKET_H_

/*
 * What a client of scoutfs-notifyd sends and receives, in version 2 of the
 * protocol, besides the records of notify_ioctl.h.  scoutfs-notify(5) has
 * the rules.  All numbers are in the byte order of the machine.
 */

#include <linux/types.h>

enum scoutfs_notify_version {
	SCOUTFS_NOTIFY_VERSION_1 = 1, /* the first two fields of the request */
	SCOUTFS_NOTIFY_VERSION_2 = 2
};

/* how many entries each list of a request has room for */
#define SCOUTFS_NOTIFY_FILTER_MAX 64

enum scoutfs_notify_request_flag {
	SCOUTFS_NOTIFY_PROBE = 1,
	SCOUTFS_NOTIFY_SKIP_TYPES = 2,
	SCOUTFS_NOTIFY_SKIP_UIDS = 4,
	SCOUTFS_NOTIFY_SKIP_PIDS = 8,
	SCOUTFS_NOTIFY_SKIP_SELF = 16
};

/*
 * The request, which a client sends once, in one packet.  Only accesses
 * that fulfil all conditions are told; an empty list is none.
 *
 * @version: 2.
 *
 * @max_records: The most records that a packet is to hold, control records
 * included, from 1 to 1024.
 *
 * @flags: PROBE asks for HELLO and END alone.  SKIP_TYPES, SKIP_UIDS and
 * SKIP_PIDS turn a list, which can't be empty then, into one of what isn't
 * wanted.  SKIP_SELF leaves out the process that connected.  Other bits
 * must be 0.
 *
 * @idle_ms: After how many milliseconds without a packet IDLE is sent, 10
 * to 86400000, or 0 for never.
 *
 * @types: The list of types, as bits: 1 << SCOUTFS_NOTIFY_OPEN.  Bit 0 must
 * be 0.
 *
 * @nr_uids, @nr_pids, @nr_inos: How many entries the lists have.  Those
 * after them must be 0.
 *
 * @resume_rid, @resume_seq: What the client knows already: the mount, from
 * HELLO, and the last number that was told.  A resume_rid of 0 is nothing.
 *
 * @reserved: Must be 0.
 */
struct scoutfs_notify_request {
	__u32 version;
	__u32 max_records;
	__u32 flags;
	__u32 idle_ms;
	__u32 types;
	__u32 nr_uids;
	__u32 nr_pids;
	__u32 nr_inos;
	__u64 resume_rid;
	__u64 resume_seq;
	__u64 reserved[2];
	__u64 inos[SCOUTFS_NOTIFY_FILTER_MAX];
	__u32 uids[SCOUTFS_NOTIFY_FILTER_MAX];
	__u32 pids[SCOUTFS_NOTIFY_FILTER_MAX];
};

/*
 * The types of control records.  They have the size of a record, with their
 * type and flags in the same place, and are told from others by the bit
 * SCOUTFS_NOTIFY_CONTROL.  Skip those that you don't know.
 */
#define SCOUTFS_NOTIFY_CONTROL 0x8000

enum scoutfs_notify_control_type {
	SCOUTFS_NOTIFY_HELLO = 0x8000,
	SCOUTFS_NOTIFY_LOST = 0x8001,
	SCOUTFS_NOTIFY_IDLE = 0x8002,
	SCOUTFS_NOTIFY_END = 0x8003
};

/*
 * The start of the stream.
 *
 * @next: The number of the next access.  Each number from this on is in a
 * record or in a LOST, or was filtered out.  0 if it isn't known.
 *
 * @time_ns: CLOCK_REALTIME in nanoseconds, when the daemon sent this.  So
 * it is in all control records.
 *
 * @fsid, @rid: The file system and the mount, which numbers belong to.
 *
 * @daemon_start_ns, @reader_start_ns: When the daemon started, and when it
 * attached to the mount.
 *
 * @dev_major, @dev_minor: The mount's device, as in mountinfo.
 *
 * @version: That of the protocol.
 */
struct scoutfs_notify_hello {
	__u64 next;
	__u64 time_ns;
	__u64 fsid;
	__u64 rid;
	__u64 daemon_start_ns;
	__u64 reader_start_ns;
	__u32 dev_major;
	__u32 dev_minor;
	__u32 version;
	__u16 type;
	__u16 flags;
};

/* where accesses were lost, a set */
enum scoutfs_notify_cause {
	SCOUTFS_NOTIFY_LOST_KERNEL = 1,     /* the ring was full */
	SCOUTFS_NOTIFY_LOST_QUEUE = 2,      /* the client was too slow */
	SCOUTFS_NOTIFY_LOST_AWAY = 4,       /* the client wasn't connected */
	SCOUTFS_NOTIFY_LOST_UNATTENDED = 8  /* no daemon was attached */
};

enum scoutfs_notify_lost_flag {
	SCOUTFS_NOTIFY_AT_MOST = 1, /* the filter may leave out some of them */
	SCOUTFS_NOTIFY_UNKNOWN = 2  /* any number more, which nobody counted */
};

/*
 * Accesses are missing.
 *
 * @first, @last: The numbers between which they are.  Both are 0 if no
 * number is missing.
 *
 * @count: How many are missing, exactly unless @flags say otherwise.
 */
struct scoutfs_notify_lost {
	__u64 first;
	__u64 time_ns;
	__u64 last;
	__u64 count;
	__u64 reserved[2];
	__u32 reserved2[2];
	__u32 cause;
	__u16 type;
	__u16 flags;
};

/*
 * All accesses up to number @seq (0: none is known), and all that were made
 * before @time_ns, have been told.
 */
struct scoutfs_notify_idle {
	__u64 seq;
	__u64 time_ns;
	__u64 reserved[4];
	__u32 reserved2[3];
	__u16 type;
	__u16 flags;
};

enum scoutfs_notify_reason {
	SCOUTFS_NOTIFY_END_UNMOUNTED = 1,
	SCOUTFS_NOTIFY_END_STOPPING = 2,
	SCOUTFS_NOTIFY_END_RESTARTING = 3,
	SCOUTFS_NOTIFY_END_FAILED = 4,
	SCOUTFS_NOTIFY_END_PROBE = 5,
	/* turned away */
	SCOUTFS_NOTIFY_END_MAX_CLIENTS = 6,
	SCOUTFS_NOTIFY_END_CREDENTIALS = 7,
	SCOUTFS_NOTIFY_END_RESOURCES = 8,
	SCOUTFS_NOTIFY_END_PROTOCOL = 9
};

/*
 * The last of the stream: all accesses up to number @seq (0: none is known)
 * have been told.  A stream that ends without this has broken off.
 */
struct scoutfs_notify_end {
	__u64 seq;
	__u64 time_ns;
	__u64 reserved[4];
	__u32 reserved2[2];
	__u32 reason;
	__u16 type;
	__u16 flags;
};

/* refuses to compile if a size is wrong */
typedef char scoutfs_notify_sizes[
	sizeof(struct scoutfs_notify_request) == 1088 &&
	sizeof(struct scoutfs_notify_hello) == 64 &&
	sizeof(struct scoutfs_notify_lost) == 64 &&
	sizeof(struct scoutfs_notify_idle) == 64 &&
	sizeof(struct scoutfs_notify_end) == 64 ? 1 : -1];

#endif
