//! Connections of our own that must reach one certain worker, in the rotation
//! or out of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::{fmt, io};

use supervisor_config::ListenAddress;
use supervisor_core::{SeatId, WorkerId};
use supervisor_sys::steering::MAX_PROBES;

use super::{Listeners, Member};
use crate::group::Lead;
use crate::link::Link;
use crate::settings::{Settings, address_text};

/// Where a connection to a worker goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(std::path::PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// How a worker can be reached.
#[derive(Debug, Clone)]
pub(crate) enum Reach {
    /// Through its own socket, to which a connection has to be led.
    Own {
        to: SocketAddr,
        /// The address of the group.
        group: ListenAddress,
        /// The member.
        key: String,
        socket: Rc<OwnedFd>,
    },
    /// As anybody else would: it shares its socket, or the socket is none of
    /// ours.
    Open(Endpoint),
    /// Not yet: what it lacks, in words.
    No(String),
}

impl Reach {
    /// Whether both lead to the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own { key, .. }, Self::Own { key: other, .. }) => key == other,
            (Self::Open(to), Self::Open(other)) => to == other,
            (Self::Own { .. } | Self::Open(_) | Self::No(_), _) => false,
        }
    }
}

impl Listeners {
    /// How a worker can be reached at an address; without one, at the first that
    /// its app declares, or else the first of TCP that it listens on. `captured` tells
    /// whether what it binds is seen.
    pub(crate) fn reach(
        &self,
        seat: SeatId,
        worker: WorkerId,
        settings: &Settings,
        address: Option<&ListenAddress>,
        captured: bool,
    ) -> Reach {
        let wanted = address.or(settings.app.listen.first());
        let members = self.members.get(&seat).map(Vec::as_slice).unwrap_or_default();
        // A captured one of an earlier worker is not served yet.
        let own = || members.iter().filter(|member| !member.captured || member.holder == Some(worker));
        let Some(wanted) = wanted else {
            // A program's own business is often at a path.
            return match own().find(|member| matches!(member.address, ListenAddress::Tcp { .. })) {
                Some(member) => self.through(member, &member.address, settings),
                None if captured => Reach::No("it does not listen on a port yet".to_owned()),
                None => {
                    Reach::No("nobody can see where it listens: give `ready_check` an `address`".to_owned())
                }
            };
        };
        let found = own().find(|member| member.address == *wanted);
        let found = found.or_else(|| own().find(|member| covers(&member.address, wanted)));
        match found {
            Some(member) => self.through(member, wanted, settings),
            // Somebody else of the app would answer.
            None if captured && self.of_app(seat.slot.app).any(|member| covers(&member.address, wanted)) => {
                Reach::No(format!("it does not listen on {} yet", address_text(wanted)))
            }
            None => Reach::Open(endpoint(wanted)),
        }
    }

    fn through(&self, member: &Member, wanted: &ListenAddress, settings: &Settings) -> Reach {
        let Member { address, socket, key, .. } = member;
        let steered =
            self.group(&settings.app.name, address).is_some_and(|group| !group.unsteered && !group.joined);
        // One that is wanted at any address is asked where it is.
        let to = match endpoint(if is_any(wanted) { address } else { wanted }) {
            Endpoint::Tcp(to) if steered && !member.common && !self.is_shared(address) => to,
            open @ (Endpoint::Tcp(_) | Endpoint::Unix(_)) => return Reach::Open(open),
        };
        Reach::Own { to, group: address.clone(), key: key.clone(), socket: Rc::clone(socket) }
    }

    /// Leads the connections of a client, known by the address that it has
    /// bound, to one member until [`Self::release`].
    ///
    /// # Errors
    ///
    /// What the kernel says to the program; too many are led already.
    pub(crate) fn lead(
        &mut self,
        app: &str,
        group: &ListenAddress,
        key: &str,
        client: SocketAddr,
        link: &Link,
    ) -> io::Result<()> {
        self.look_for_leavers(app, group, link);
        let led = self.group_mut(app, group).filter(|group| group.contains(key));
        let led = led.ok_or_else(|| io::Error::other("it does not listen any more"))?;
        if led.leads.len() >= MAX_PROBES {
            return Err(io::Error::other("too many checks at once"));
        }
        led.leads.push(Lead { client, key: key.to_owned() });
        self.attach_again(app, group).inspect_err(|_| self.forget_lead(app, group, client))
    }

    /// Treats a client as any other again. Returns whether its connections went
    /// to its member all the time.
    pub(crate) fn release(
        &mut self,
        app: &str,
        address: &ListenAddress,
        client: SocketAddr,
        link: &Link,
    ) -> bool {
        // One that has left unseen has changed the numbers of others.
        self.look_for_leavers(app, address, link);
        let Some(group) = self.group(app, address) else { return false };
        let was_led = group.leads.iter().any(|lead| lead.client == client);
        self.forget_lead(app, address, client);
        if was_led && let Err(error) = self.attach_again(app, address) {
            tracing::debug!("{app}: a check's connections are led on: {error}");
        }
        was_led
    }

    /// Leads nobody to these members any more. Returns whether anybody was.
    pub(super) fn drop_leads(&mut self, app: &str, address: &ListenAddress, keys: &[&str]) -> bool {
        let Some(group) = self.group_mut(app, address) else { return false };
        group.leads.extract_if(.., |lead| keys.contains(&lead.key.as_str())).count() > 0
    }

    fn forget_lead(&mut self, app: &str, address: &ListenAddress, client: SocketAddr) {
        if let Some(group) = self.group_mut(app, address) {
            group.leads.retain(|lead| lead.client != client);
        }
    }
}

/// Whether a socket at an address gets connections to the wanted one.
fn covers(address: &ListenAddress, wanted: &ListenAddress) -> bool {
    match (address, wanted) {
        (ListenAddress::Tcp { address, dual_stack }, ListenAddress::Tcp { address: to, .. }) => {
            let same_family = address.is_ipv4() == to.is_ipv4();
            let is_any = address.ip().is_unspecified() && (same_family || *dual_stack);
            address.port() == to.port() && (address.ip() == to.ip() || is_any || to.ip().is_unspecified())
        }
        (ListenAddress::Unix(path), ListenAddress::Unix(to)) => path == to,
        (ListenAddress::Tcp { .. }, ListenAddress::Unix(_))
        | (ListenAddress::Unix(_), ListenAddress::Tcp { .. }) => false,
    }
}

const fn is_any(address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Tcp { address, .. } => address.ip().is_unspecified(),
        ListenAddress::Unix(_) => false,
    }
}

/// Where a client on this machine connects to.
fn endpoint(address: &ListenAddress) -> Endpoint {
    match address {
        ListenAddress::Tcp { address, dual_stack } => {
            let ip = match address.ip().to_canonical() {
                ip if !ip.is_unspecified() => ip,
                IpAddr::V6(_) if !dual_stack => Ipv6Addr::LOCALHOST.into(),
                // There may be no IPv6 but for the socket itself.
                IpAddr::V4(_) | IpAddr::V6(_) => Ipv4Addr::LOCALHOST.into(),
            };
            Endpoint::Tcp(SocketAddr::new(ip, address.port()))
        }
        ListenAddress::Unix(path) => Endpoint::Unix(path.clone()),
    }
}
