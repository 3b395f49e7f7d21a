//! A connection without manners: sends any bytes, and sees every frame that comes back.

use crate::daemon::PATIENCE;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use vendue_wire::client::Identity;
use vendue_wire::code::{Goodbye, Reject};
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, encode, encode_raw};
use vendue_wire::message::{Body, Farewell, Heartbeat, Logon, LogonAck, Refused};

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    /// Kind.
    pub kind: u8,
    /// Sequence.
    pub sequence: u64,
    /// Body.
    pub body: Vec<u8>,
}

impl Came {
    /// The body as message `M`, if it is one.
    pub fn message<M: Body>(&self) -> Option<M> {
        if self.kind == M::KIND { M::read_from_bytes(&self.body).ok() } else { None }
    }

    /// The code of a refusal, if it is one.
    pub fn refusal(&self) -> Option<Reject> {
        Reject::from_u8(self.message::<Refused>()?.code)
    }
}

/// The connection, over the Unix socket.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub stream: UnixStream,
    inbox: Vec<u8>,
}

impl Raw {
    /// Connects and says nothing.
    ///
    /// # Panics
    /// If nobody listens.
    pub fn connect(socket: &Path) -> Raw {
        Raw::over(UnixStream::connect(socket).expect("connect"))
    }

    /// Over a connection that is there.
    ///
    /// # Panics
    /// If it cannot be bounded in time.
    pub fn over(stream: UnixStream) -> Raw {
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        Raw { stream, inbox: Vec::new() }
    }

    /// Connects and logs on.
    ///
    /// # Panics
    /// If the logon is not acknowledged.
    pub fn logged_on(socket: &Path, identity: &Identity) -> Raw {
        let mut raw = Raw::connect(socket);
        raw.send(0, &logon(identity));
        let ack = raw.frame().expect("an answer to the logon");
        assert!(ack.message::<LogonAck>().is_some(), "{ack:?}");
        raw
    }

    /// Sends a message; false if the daemon has closed the connection.
    pub fn send<M: Body>(&mut self, sequence: u64, message: &M) -> bool {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode(sequence, message, &mut bytes);
        self.send_bytes(&bytes[..length])
    }

    /// Sends a frame of any kind and body; false if the daemon has closed the connection.
    pub fn send_raw(&mut self, kind: u8, sequence: u64, body: &[u8]) -> bool {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode_raw(kind, sequence, body, &mut bytes);
        self.send_bytes(&bytes[..length])
    }

    /// Sends any bytes; false if the daemon has closed the connection.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame, or `None` at the end of the connection.
    ///
    /// # Panics
    /// If neither comes.
    pub fn frame(&mut self) -> Option<Came> {
        loop {
            if let Some(frame) = Frame::parse(&self.inbox).expect("the daemon speaks in frames") {
                let (kind, sequence) = (frame.header.kind, frame.header.sequence.get());
                let came = Came { kind, sequence, body: frame.body.to_vec() };
                let length = frame.len();
                self.inbox.drain(..length);
                return Some(came);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("neither a frame nor the end came: {error}"),
            }
        }
    }

    /// The next frame that is no heartbeat.
    pub fn next_said(&mut self) -> Option<Came> {
        loop {
            let came = self.frame()?;
            if came.kind != Heartbeat::KIND {
                return Some(came);
            }
        }
    }

    /// Reads to the end of the connection: the last frame must say why it ends.
    ///
    /// # Panics
    /// If it ends without a reason.
    #[track_caller]
    pub fn farewell(&mut self) -> Goodbye {
        let mut last = None;
        while let Some(came) = self.frame() {
            last = Some(came);
        }
        let farewell = last.as_ref().and_then(Came::message::<Farewell>);
        let Some(farewell) = farewell else { panic!("no farewell, but {last:?}") };
        Goodbye::from_u8(farewell.reason).expect("a known reason")
    }
}

/// A logon's message.
pub fn logon(identity: &Identity) -> Logon {
    Logon {
        session: identity.session.into(),
        token: identity.token,
        replay_from: identity.replay_from.into(),
        account: identity.account.into(),
        instance: identity.instance.into(),
        heartbeat_ms: identity.heartbeat_ms.into(),
        role: identity.role as u8,
        cancel_on_disconnect: identity.cancel_on_disconnect.into(),
        reserved: [0; 2],
    }
}
