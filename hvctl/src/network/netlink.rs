//! Requests to the kernel's routing netlink, one at a time: the answer is there when the request has
//! been sent. A socket belongs to the network namespace it was opened in.

use super::htb::{self, Class};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use std::io;
use std::os::fd::RawFd;

/// Messages of one answer at most: more interfaces than one instance has.
const ANSWERS_MAX: usize = 4096;

/// A network interface that is not the loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    /// The other end's number, in its own namespace.
    pub(super) peer: Option<u32>,
    /// What the namespace it is in calls the other end's, where that is another.
    pub(super) peer_namespace: Option<i32>,
}

/// A socket to the kernel.
#[derive(Debug)]
pub(super) struct Netlink(Socket);

impl Netlink {
    /// In the calling thread's namespace.
    pub(super) fn open() -> Result<Netlink, Errno> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(errno)?;
        socket.bind_auto().map_err(errno)?;
        // The kernel has answered before a request returns; nothing is waited for.
        socket.set_non_blocking(true).map_err(errno)?;
        Ok(Netlink(socket))
    }

    /// All but the loopback.
    pub(super) fn interfaces(&self) -> Result<Vec<Interface>, Errno> {
        let answers = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(interface_of).collect())
    }

    /// The one with this number.
    pub(super) fn interface(&self, index: u32) -> Result<Option<Interface>, Errno> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Ok(answers) => Ok(answers.into_iter().find_map(interface_of)),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What this socket's namespace calls another one, if it knows it.
    pub(super) fn number_of(&self, namespace: RawFd) -> Result<Option<i32>, Errno> {
        let mut message = NsidMessage::default();
        message.attributes = vec![NsidAttribute::Fd(namespace as u32)];
        let answers = self.ask(RouteNetlinkMessage::GetNsId(message), NLM_F_ACK)?;
        let numbers = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNsId(message) => Some(message.attributes),
            _ => None,
        });
        let number = numbers.flatten().find_map(|attribute| match attribute {
            NsidAttribute::Id(number) => Some(number),
            _ => None,
        });
        Ok(number.filter(|&number| number >= 0))
    }

    /// The class that limits an interface, if there is one of ours.
    pub(super) fn rate(&self, index: u32) -> Result<Option<Class>, Errno> {
        let message = message(index, (htb::CLASS, 0), Vec::new());
        // The kernel takes the answer for a notice to others, unless an echo is asked for.
        let message = RouteNetlinkMessage::GetTrafficClass(message);
        match self.ask(message, NLM_F_ACK | NLM_F_ECHO) {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewTrafficClass(class) => htb::parse(&class.attributes),
                _ => None,
            })),
            // Another discipline is there, or none.
            Err(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Limits what leaves through an interface. Whatever discipline it had makes room.
    pub(super) fn set_rate(&self, index: u32, bytes_per_s: u64) -> Result<(), Errno> {
        let class = || {
            let message = message(index, (htb::CLASS, htb::HANDLE), htb::class(bytes_per_s));
            let message = RouteNetlinkMessage::NewTrafficClass(message);
            self.ask(message, NLM_F_ACK | NLM_F_CREATE).map(drop)
        };
        // Where our discipline stands already its queue and its debts stay.
        if class().is_ok() {
            return Ok(());
        }
        let root = u32::from(TcHandle::ROOT);
        let message = message(index, (htb::HANDLE, root), htb::discipline());
        let message = RouteNetlinkMessage::NewQueueDiscipline(message);
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)?;
        class()
    }

    /// Takes our discipline off an interface, which gets the kernel's own again.
    pub(super) fn lift(&self, index: u32) -> Result<(), Errno> {
        let root = u32::from(TcHandle::ROOT);
        let message = message(index, (htb::HANDLE, root), Vec::new());
        match self.ask(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK) {
            Ok(_) | Err(Errno::ENOENT | Errno::EINVAL) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn ask(
        &self,
        what: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(what));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0).map_err(errno)?;
        let mut answers = Vec::new();
        while answers.len() < ANSWERS_MAX {
            let (bytes, _) = self.0.recv_from_full().map_err(errno)?;
            if take(&bytes, &mut answers)? {
                return Ok(answers);
            }
        }
        Err(Errno::EMSGSIZE)
    }
}

/// Takes the messages of one datagram; true after the last one of an answer.
fn take(mut bytes: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> Result<bool, Errno> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
            .map_err(|_| Errno::EBADMSG)?;
        let length = (message.header.length as usize).next_multiple_of(4);
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return error.code.map_or(Ok(true), |code| Err(Errno::from_raw(-code.get())));
            }
            _ => {}
        }
        bytes = bytes.get(length.max(1)..).unwrap_or_default();
    }
    Ok(false)
}

fn message(index: u32, (handle, parent): (u32, u32), attributes: Vec<TcAttribute>) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.handle = handle.into();
    message.header.parent = parent.into();
    message.attributes = attributes;
    message
}

fn interface_of(answer: RouteNetlinkMessage) -> Option<Interface> {
    let RouteNetlinkMessage::NewLink(link) = answer else { return None };
    if link.header.flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let mut interface = Interface { index: link.header.index, peer: None, peer_namespace: None };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::Link(peer) => interface.peer = Some(peer),
            LinkAttribute::LinkNetNsId(number) => interface.peer_namespace = Some(number),
            _ => {}
        }
    }
    Some(interface)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
