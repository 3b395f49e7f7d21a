//! A peer without manners that checks every word it is told.

use super::room::{ACCOUNTS, INSTANCES};
use arbitrary::{Result, Unstructured};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use vendue_wire::code::Role;
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, encode_raw};
use vendue_wire::message::*;
use zerocopy::IntoBytes;

/// Bytes of the shared rings asked for.
const RING_BYTES: u32 = 4096;
/// Where a ring's cursors and its first words are.
const RING_FIELDS: [u64; 7] = [0, 128, 256, 384, 4096, 4104, 4112];

/// A descriptor that came with `Attached`, as a path to open.
fn reopen(fd: RawFd) -> File {
    let path = format!("/proc/self/fd/{fd}");
    let file = File::options().read(true).write(true).open(path).expect("our own memory");
    nix::unistd::close(fd).expect("a descriptor that just came");
    file
}

/// The two rings, as files: what a peer can do, it can do with these.
struct Rings {
    requests: File,
    reports: File,
    /// Our cursors, in words.
    written: u64,
    read: u64,
    /// False once it has written nonsense into what it reads.
    sane: bool,
}

/// What a logon asked for.
#[derive(Clone, Copy)]
struct Asked {
    session: u64,
    account: u32,
    instance: u32,
    role: u8,
}

/// The peer.
pub struct Peer {
    stream: UnixStream,
    inbox: Vec<u8>,
    fds: Vec<RawFd>,
    rings: Option<Rings>,
    asked: Option<Asked>,
    open: Option<Role>,
    over: bool,
    next_request: u64,
    next_id: u64,
    last_report: u64,
    handles: Vec<u64>,
}

impl Peer {
    pub fn connect(socket: &Path) -> Peer {
        let stream = UnixStream::connect(socket).expect("the house is open");
        stream.set_nonblocking(true).expect("a socket");
        Peer {
            stream,
            inbox: Vec::new(),
            fds: Vec::new(),
            rings: None,
            asked: None,
            open: None,
            over: false,
            next_request: 1,
            next_id: 1,
            last_report: 0,
            handles: Vec::new(),
        }
    }

    // ---- speaking ----------------------------------------------------------------------------

    pub fn log_on(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let mut logon = Logon::zeroed();
        logon.session = bytes.int_in_range(0..=7_u64)?.into();
        logon.account = (*bytes.choose(&[0, 1, 1, ACCOUNTS, ANY])?).into();
        logon.instance = (*bytes.choose(&[0, 1, 2, INSTANCES, ANY])?).into();
        logon.role = bytes.int_in_range(0..=4)?;
        logon.replay_from = bytes.int_in_range(0..=4_u64)?.into();
        logon.cancel_on_disconnect = bytes.int_in_range(0..=2)?;
        if self.asked.is_none() {
            self.asked = Some(Asked {
                session: logon.session.get(),
                account: logon.account.get(),
                instance: logon.instance.get(),
                role: logon.role,
            });
        }
        let sequence = if self.open.is_some() { self.next_request } else { 0 };
        self.next_request += u64::from(self.open.is_some());
        self.send(Logon::KIND, sequence, logon.as_bytes());
        Ok(())
    }

    pub fn attach(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let mut attach = Attach::zeroed();
        attach.what = bytes.int_in_range(0..=2)?;
        attach.ring_bytes = if bytes.ratio(1, 8)? { bytes.arbitrary()? } else { RING_BYTES }.into();
        self.say(Attach::KIND, attach.as_bytes());
        Ok(())
    }

    /// An order that may well be taken.
    pub fn order(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let mut order = NewOrder::zeroed();
        order.client_id = self.next_id.into();
        self.next_id += 1;
        order.instance = bytes.int_in_range(0..=INSTANCES)?.into();
        order.price_ticks = bytes.int_in_range(0..=9_u32)?.into();
        order.quantity = bytes.int_in_range(0..=12_u32)?.into();
        order.side = bytes.int_in_range(0..=1)?;
        order.time_in_force = *bytes.choose(&[0, 0, 0, 2, 3])?;
        self.say(NewOrder::KIND, order.as_bytes());
        Ok(())
    }

    /// Any request, its fields small numbers, handles that were given out, or anything.
    pub fn request(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let requests = SCHEMA.iter().filter(|row| {
            // Who owns which instance stays as it is, so that it can be checked.
            row.0 < 0x80
                && ![CreateInstance::KIND, RemoveInstance::KIND, ExpectInstance::KIND, Depart::KIND]
                    .contains(&row.0)
        });
        let rows: Vec<_> = requests.collect();
        let row = bytes.choose(&rows)?;
        if row.0 == Logon::KIND {
            return self.log_on(bytes);
        }
        let mut body = vec![0; row.2];
        for (name, at, size) in row.3 {
            let value: u64 = match *name {
                name if name.starts_with("reserved") && !bytes.ratio(1, 16)? => 0,
                "client_id" => self.next_id,
                "handle" if !self.handles.is_empty() => *bytes.choose(&self.handles)?,
                "what" => 1,
                _ if bytes.ratio(1, 8)? => bytes.arbitrary()?,
                _ => bytes.int_in_range(0..=3)?,
            };
            let size = (*size).min(8);
            body[*at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        self.next_id += 1;
        self.say(row.0, &body);
        Ok(())
    }

    /// Bytes, frames of any kind, and sequences out of turn.
    pub fn say_anything(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let length = bytes.len().min(bytes.int_in_range(0..=80)?);
        match bytes.int_in_range(0..=3_u8)? {
            0 => {
                let sequence = bytes.arbitrary()?;
                let body = bytes.bytes(bytes.len().min(length))?;
                self.send(any_kind(body), sequence, body);
            }
            1 => {
                let body = bytes.bytes(bytes.len().min(length))?.to_vec();
                self.say(any_kind(&body), &body);
            }
            2 if self.rings.is_some() => {
                let record = bytes.bytes(bytes.len().min(length))?;
                self.push(record);
            }
            _ => {
                let _ = self.stream.write(bytes.bytes(bytes.len().min(length))?);
            }
        }
        Ok(())
    }

    /// Writes words into the shared memory.
    pub fn scribble(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let Some(rings) = &mut self.rings else { return Ok(()) };
        for _ in 0..bytes.int_in_range(1..=4)? {
            let at = *bytes.choose(&RING_FIELDS)?;
            let word: u64 = match bytes.int_in_range(0..=2_u8)? {
                0 => bytes.arbitrary()?,
                1 => bytes.int_in_range(0..=1024)?,
                _ => rings.written + bytes.int_in_range(0..=80)?,
            };
            let of = if bytes.ratio(1, 4)? {
                rings.sane = false;
                &rings.reports
            } else {
                &rings.requests
            };
            of.write_all_at(&word.to_le_bytes(), at).expect("shared memory");
        }
        Ok(())
    }

    /// The next message of the session.
    fn say(&mut self, kind: u8, body: &[u8]) {
        let sequence = self.next_request;
        self.next_request += 1;
        self.send(kind, sequence, body);
    }

    fn send(&mut self, kind: u8, sequence: u64, body: &[u8]) {
        let mut frame = [0; FRAME_BYTES_MAX];
        let length = encode_raw(kind, sequence, body, &mut frame);
        if self.rings.is_some() {
            self.push(&frame[..length]);
        } else {
            let _ = self.stream.write(&frame[..length]);
        }
    }

    /// Pushes a record into the ring of requests, without looking whether there is room.
    fn push(&mut self, record: &[u8]) {
        let Some(rings) = &mut self.rings else { return };
        let mut words = (record.len() as u64).to_le_bytes().to_vec();
        words.extend_from_slice(record);
        words.resize(words.len().next_multiple_of(8), 0);
        for word in words.as_chunks::<8>().0 {
            let at = rings.written * 8 % u64::from(RING_BYTES);
            rings.requests.write_all_at(word, 4096 + at).expect("shared memory");
            rings.written += 1;
        }
        let cursor = rings.written.to_le_bytes();
        rings.requests.write_all_at(&cursor, 128).expect("shared memory");
    }

    // ---- listening ---------------------------------------------------------------------------

    /// Reads and checks everything there is.
    pub fn listen(&mut self) {
        while self.receive() {}
        while let Ok(Some(frame)) = Frame::parse(&self.inbox) {
            let whole = self.inbox[..frame.len()].to_vec();
            self.inbox.drain(..whole.len());
            self.hear(&whole);
        }
        assert!(Frame::parse(&self.inbox).is_ok(), "the daemon speaks in frames");
        while let Some(record) = self.pull() {
            self.hear(&record);
        }
    }

    fn receive(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let mut space = cmsg_space!([RawFd; 4]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let raw = self.stream.as_raw_fd();
        let Ok(message) = recvmsg::<UnixAddr>(raw, &mut slices, Some(&mut space), flags) else {
            return false;
        };
        for control in message.cmsgs().expect("room for them") {
            if let ControlMessageOwned::ScmRights(fds) = control {
                self.fds.extend(fds);
            }
        }
        let count = message.bytes;
        self.inbox.extend_from_slice(&bytes[..count]);
        count > 0
    }

    /// The next record of the ring of reports.
    fn pull(&mut self) -> Option<Vec<u8>> {
        let rings = self.rings.as_mut().filter(|rings| rings.sane)?;
        let word = |at: u64| {
            let mut word = [0; 8];
            rings.reports.read_exact_at(&mut word, at).expect("shared memory");
            word
        };
        let data = |at: u64| word(4096 + at * 8 % u64::from(RING_BYTES));
        let end = u64::from_le_bytes(word(128));
        if rings.read == end {
            return None;
        }
        let length = u64::from_le_bytes(data(rings.read)) as u32 as usize;
        let words = length.div_ceil(8) as u64;
        assert!(rings.read + 1 + words <= end, "a record that was not pushed whole");
        let mut record: Vec<u8> = (1..=words).flat_map(|at| data(rings.read + at)).collect();
        record.truncate(length);
        rings.read += 1 + words;
        rings.reports.write_all_at(&rings.read.to_le_bytes(), 256).expect("shared memory");
        Some(record)
    }

    fn hear(&mut self, bytes: &[u8]) {
        let frame = Frame::parse(bytes).expect("a frame").expect("a whole frame");
        assert_eq!(frame.len(), bytes.len(), "a record is one frame");
        let (kind, sequence) = (frame.header.kind, frame.header.sequence.get());
        let row = SCHEMA.iter().find(|row| row.0 == kind).expect("a known kind");
        assert_eq!(frame.body.len(), row.2, "{}", row.1);
        assert!(kind >= 0x80 || kind == Heartbeat::KIND, "{} is for daemons", row.1);
        assert!(!self.over, "{} after the farewell", row.1);
        if let Some(ack) = frame.message::<LogonAck>() {
            return self.opened(ack);
        }
        self.over |= kind == Farewell::KIND;
        if self.open.is_none() {
            assert!([Refused::KIND, Farewell::KIND].contains(&kind), "{} to a stranger", row.1);
        }
        if let Some(attached) = frame.message::<Attached>() {
            return self.attached(attached);
        }
        if (0x90..0xa0).contains(&kind) {
            self.report(&frame, sequence);
        } else {
            assert_eq!(sequence, 0, "{} is no report", row.1);
        }
    }

    fn opened(&mut self, ack: &LogonAck) {
        let asked = self.asked.expect("a logon was sent");
        assert!(self.open.is_none(), "opened twice");
        assert_eq!(ack.session.get(), asked.session, "another's session");
        let role = Role::from_u8(ack.role).expect("a role");
        if asked.session == 0 {
            assert_eq!(role, Role::Observer);
        } else {
            assert_eq!((ack.role, ack.account.get()), (asked.role, asked.account));
            assert_eq!(ack.instance.get(), asked.instance);
        }
        self.open = Some(role);
        self.next_request = ack.last_request.get() + 1;
        self.next_id = ack.last_client_id.get() + 1;
        self.last_report = ack.next_sequence.get() - 1;
        assert!(ack.oldest_sequence.get() <= ack.next_sequence.get());
    }

    fn attached(&mut self, attached: &Attached) {
        let count = if attached.what == 0 { 4 } else { 1 };
        assert!(self.fds.len() >= count, "the descriptors come with the frame");
        let fds: Vec<RawFd> = self.fds.drain(..count).collect();
        if let [requests, reports, bell, doorbell] = fds[..] {
            let (requests, reports) = (reopen(requests), reopen(reports));
            self.rings = Some(Rings { requests, reports, written: 0, read: 0, sane: true });
            for fd in [bell, doorbell] {
                nix::unistd::close(fd).expect("ours");
            }
        } else {
            fds.iter().for_each(|fd| nix::unistd::close(*fd).expect("ours"));
        }
    }

    /// Reports come without a gap, and are about what is ours.
    fn report(&mut self, frame: &Frame<'_>, sequence: u64) {
        let asked = self.asked.expect("a session");
        assert_ne!(asked.session, 0, "a report to an anonymous session");
        assert!(sequence >= 1 && sequence <= self.last_report + 1, "a gap before {sequence}");
        self.last_report = self.last_report.max(sequence);
        let instance = if let Some(accepted) = frame.message::<Accepted>() {
            self.handles.push(accepted.handle.get());
            accepted.instance.get()
        } else if let Some(filled) = frame.message::<Filled>() {
            filled.instance.get()
        } else if let Some(cancelled) = frame.message::<Cancelled>() {
            cancelled.instance.get()
        } else {
            return;
        };
        match self.open {
            Some(Role::Operator) => {}
            Some(Role::Tenant) => assert_eq!(instance % ACCOUNTS, asked.account, "not its own"),
            Some(Role::Agent) => assert_eq!(instance, asked.instance, "not its own"),
            other => panic!("{other:?} has an order"),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for fd in self.fds.drain(..) {
            let _ = nix::unistd::close(fd);
        }
    }
}

/// A kind made of what is said: any but those that would change who owns what.
fn any_kind(body: &[u8]) -> u8 {
    match body.first() {
        None | Some(&(CreateInstance::KIND | RemoveInstance::KIND)) => Heartbeat::KIND,
        Some(kind) => *kind,
    }
}
