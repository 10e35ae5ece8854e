//! What join strings name as the server's host: the place that proxies dial.
//!
//! In: what the operator set, where the server listens, what the host is called and which addresses it has.
//! Out: host and port. Always: [`choose`] is pure, and it always names something. Never: asks DNS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pulse_proto::DEFAULT_PORT;

use crate::config::PublicAddress;

/// The host that the server runs on, as far as a join string may need to know it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Host {
    /// Its fully qualified name, if it has one.
    pub fqdn: Option<String>,
    /// Its addresses, in the system's order.
    pub addresses: Vec<IpAddr>,
}

impl Host {
    /// Asks the system: its name, `/etc/hosts`, its interfaces. What cannot be told is left out.
    #[must_use]
    pub fn of_system() -> Host {
        let name = node_name();
        // Bounded: a hosts file of blocked names can be large, and the host's own line stands in front.
        let hosts = pulse_config::read_text("/etc/hosts".as_ref()).ok().flatten().unwrap_or_default();
        let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            tracing::debug!(%error, "the addresses of this host cannot be listed");
            Vec::new()
        });
        let addresses = interfaces.iter().map(if_addrs::Interface::ip).collect();
        Host { fqdn: fully_qualified(&name, &hosts), addresses }
    }
}

/// The host's own name.
pub(crate) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Chooses what join strings name: `public_address`, else a specific address that the server listens on, else the
/// FQDN, else the first routable address.
///
/// `listen` are the addresses that are bound, with their real ports. A loopback address is taken only if the server
/// listens on nothing else, or nothing better is known.
#[must_use]
pub fn choose(public_address: Option<&PublicAddress>, listen: &[SocketAddr], host: &Host) -> (String, u16) {
    if let Some(PublicAddress { host, port }) = public_address {
        return (host.clone(), *port);
    }
    let canonical = |address: &SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let listen: Vec<SocketAddr> = listen.iter().map(canonical).collect();
    let specific = |address: &&SocketAddr| !address.ip().is_unspecified() && !address.ip().is_loopback();
    if let Some(address) = listen.iter().find(specific) {
        return (address.ip().to_string(), address.port());
    }
    let Some(everywhere) = listen.iter().find(|address| address.ip().is_unspecified()) else {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT));
        let address = listen.first().copied().unwrap_or(local);
        return (address.ip().to_string(), address.port());
    };
    if let Some(fqdn) = &host.fqdn {
        return (fqdn.clone(), everywhere.port());
    }
    // 0.0.0.0 hears IPv4 alone; [::] hears both, unless the system was told otherwise.
    let heard = |ip: &&IpAddr| is_routable(**ip) && (ip.is_ipv4() || everywhere.is_ipv6());
    let ip = host.addresses.iter().find(heard).copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
    (ip.to_canonical().to_string(), everywhere.port())
}

/// Whether other hosts can reach it: neither loopback nor of one link only.
fn is_routable(ip: IpAddr) -> bool {
    let is_link_local = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(is_link_local || ip.to_canonical().is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

/// The host's full name: its own name if that has a dot, else what `/etc/hosts` calls it, as `hostname -f` does.
///
/// Source: hosts(5), `IP_address canonical_hostname [aliases...]`.
fn fully_qualified(name: &str, hosts: &str) -> Option<String> {
    let is_full = |name: &str| {
        let labels = || name.split('.');
        labels().count() > 1
            && name.len() <= 253
            && labels().all(|label| !label.is_empty())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
            && name.parse::<IpAddr>().is_err()
            && !name.starts_with("localhost.")
            && !name.ends_with(".localhost")
    };
    if is_full(name) {
        return Some(name.to_owned());
    }
    hosts.lines().find_map(|line| {
        let text = line.split('#').next().unwrap_or_default();
        let mut names = text.split_ascii_whitespace().skip(1);
        let canonical = names.next().filter(|canonical| is_full(canonical))?;
        names.any(|alias| alias.eq_ignore_ascii_case(name)).then(|| canonical.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(fqdn: Option<&str>, addresses: &[&str]) -> Host {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        Host { fqdn: fqdn.map(str::to_owned), addresses }
    }

    fn chosen(listen: &[&str], host: &Host) -> String {
        let listen: Vec<_> = listen.iter().map(|address| address.parse().unwrap()).collect();
        let (name, port) = choose(None, &listen, host);
        pulse_proto::join::authority(&name, port)
    }

    #[test]
    fn what_the_operator_set_is_taken_as_it_is() {
        let set = PublicAddress { host: "pulse.example".into(), port: 443 };
        let listen = ["10.0.0.1:7655".parse().unwrap()];
        assert_eq!(choose(Some(&set), &listen, &Host::default()), ("pulse.example".into(), 443));
    }

    #[test]
    fn a_specific_listen_address_comes_before_every_name() {
        let known = host(Some("pulse.lan"), &["10.0.0.9"]);
        assert_eq!(chosen(&["127.0.0.1:1", "10.0.0.1:8000"], &known), "10.0.0.1:8000");
        assert_eq!(chosen(&["[2001:db8::1]:8000"], &known), "[2001:db8::1]:8000");
        assert_eq!(chosen(&["[::ffff:10.0.0.1]:8000"], &known), "10.0.0.1:8000");
    }

    #[test]
    fn a_server_that_listens_on_loopback_alone_says_so() {
        assert_eq!(chosen(&["127.0.0.1:1234"], &host(Some("pulse.lan"), &["10.0.0.9"])), "127.0.0.1:1234");
        assert_eq!(chosen(&["[::1]:1234"], &Host::default()), "[::1]:1234");
    }

    #[test]
    fn a_server_that_listens_everywhere_is_named_by_its_full_name() {
        for listen in [&["[::]:7655"][..], &["0.0.0.0:7655"], &["127.0.0.1:1", "[::]:7655"]] {
            assert_eq!(chosen(listen, &host(Some("pulse.lan"), &["10.0.0.9"])), "pulse.lan:7655");
        }
    }

    #[test]
    fn without_a_full_name_the_first_routable_address_is_taken() {
        let addresses = ["127.0.0.1", "::1", "169.254.3.4", "fe80::1", "2001:db8::9", "10.0.0.9"];
        let nameless = host(None, &addresses);
        assert_eq!(chosen(&["[::]:7655"], &nameless), "[2001:db8::9]:7655");
        assert_eq!(chosen(&["0.0.0.0:7655"], &nameless), "10.0.0.9:7655", "IPv6 is not heard there");
        assert_eq!(chosen(&["0.0.0.0:7655"], &host(None, &["127.0.0.1"])), "127.0.0.1:7655");
    }

    #[test]
    fn the_full_name_is_the_hosts_own_or_that_of_the_hosts_file() {
        let hosts = "127.0.0.1 localhost.localdomain localhost\n# 10.0.0.1 no.lan pve\n\
                     192.168.0.5\tPve.Home.lan pve # this host\n10.0.0.2 other.lan other\n";
        let name = |name| fully_qualified(name, hosts);
        assert_eq!(name("pve.example"), Some("pve.example".into()));
        assert_eq!(name("PVE"), Some("Pve.Home.lan".into()));
        assert_eq!(name("localhost"), None);
        assert_eq!(name("localhost.localdomain"), None);
        assert_eq!(name("unknown"), None);
        assert_eq!(name("10.0.0.1"), None);
        assert_eq!(
            fully_qualified("pve", "192.168.0.5 pve pve.lan\n"),
            None,
            "the first name is the canonical one"
        );
    }

    #[test]
    fn the_system_can_be_asked() {
        assert!(Host::of_system().addresses.iter().any(IpAddr::is_loopback));
    }
}
