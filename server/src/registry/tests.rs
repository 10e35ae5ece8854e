use super::*;
use crate::index::dice::Dice;

fn proxy(dice: &mut Dice) -> Proxy {
    let at = SystemTime::UNIX_EPOCH;
    let instance = [None, Some(Uuid::from_u128(1)), Some(Uuid::from_u128(2))];
    let peer = [None, Some("10.0.0.1"), Some("::ffff:10.0.0.1"), Some("2001:db8::1")][dice.below(4) as usize];
    Proxy {
        id: Uuid::from_u128(u128::from(dice.below(40))),
        hostname: ["delly", "DELLY", "pve", "minipc"][dice.below(4) as usize].to_owned(),
        machine_id: ["", "m1", "m2"][dice.below(3) as usize].to_owned(),
        kind: ProxyKind::Socket,
        proxy_url: String::new(),
        version: String::new(),
        peer: peer.map(|peer| peer.parse().unwrap()),
        instance: instance[dice.below(3) as usize],
        scope_kind: if dice.below(4) == 0 { ScopeKind::All } else { ScopeKind::Instance },
        standing: match dice.below(4) {
            0 => Standing::Revoked { at, reason: String::new() },
            1 => Standing::Removed { at, reason: String::new() },
            _ => Standing::Active,
        },
        is_approved: dice.below(3) > 0,
        rotate_requested: false,
        created_at: at,
        registered_at: at,
    }
}

fn ids<'a>(proxies: impl Iterator<Item = &'a Arc<Proxy>>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = proxies.map(|proxy| proxy.id).collect();
    ids.sort();
    ids
}

#[test]
fn the_indexes_say_what_a_look_at_all_proxies_says() {
    let mut dice = Dice::new(11);
    let mut registry = Registry::default();
    for step in 0..3_000 {
        registry.put_proxy(Arc::new(proxy(&mut dice)));
        let is_of_host = |proxy: &Proxy, machine: &str, host: &str| {
            !machine.is_empty() && proxy.machine_id == machine && proxy.hostname.eq_ignore_ascii_case(host)
        };
        for machine in ["", "m1", "m2"] {
            for host in ["Delly", "pve", "none"] {
                let looked = ids(registry.proxies().filter(|proxy| is_of_host(proxy, machine, host)));
                assert_eq!(
                    ids(registry.proxy_of_host(machine, host)),
                    looked,
                    "step {step}: {machine} {host}"
                );
            }
        }
        let is_assignable = |proxy: &&Arc<Proxy>| proxy.is_active() && proxy.is_approved;
        for host in ["Delly", "pve", "none"] {
            let is_named = |proxy: &&Arc<Proxy>| proxy.hostname.eq_ignore_ascii_case(host);
            let looked = ids(registry.proxies().filter(is_assignable).filter(is_named));
            assert_eq!(ids(registry.proxies_named(host)), looked, "step {step}: {host}");
        }
        for peer in ["10.0.0.1", "2001:db8::1", "10.0.0.9"] {
            let peer: IpAddr = peer.parse().unwrap();
            let is_at = |proxy: &&Arc<Proxy>| proxy.peer.is_some_and(|at| at.to_canonical() == peer);
            let looked = ids(registry.proxies().filter(is_assignable).filter(is_at));
            assert_eq!(ids(registry.proxies_at(peer)), looked, "step {step}: {peer}");
        }
        for instance in (1..=3).map(Uuid::from_u128) {
            let looked = ids(registry.proxies().filter(|proxy| proxy.instance == Some(instance)));
            assert_eq!(ids(registry.proxies_of(instance)), looked, "step {step}");
            let scope = Scope::Instance(instance);
            let has = registry.proxies().any(|proxy| proxy.is_active() && proxy.scope() == Some(scope));
            assert_eq!(registry.has_scope(scope), has, "step {step}");
        }
        let looked = ids(registry.proxies().filter(|proxy| proxy.is_active() && !proxy.is_approved));
        assert_eq!(registry.unapproved_count(), looked.len(), "step {step}");
        assert_eq!(ids(registry.unapproved()), looked, "step {step}");
    }
}

#[test]
fn the_indexes_say_what_a_look_at_all_tokens_says() {
    let mut dice = Dice::new(13);
    let mut registry = Registry::default();
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let sorted = |mut digests: Vec<[u8; 32]>| {
        digests.sort();
        digests
    };
    for step in 0..3_000 {
        let digest = TokenDigest::from_bytes([dice.below(30) as u8; 32]);
        if dice.below(4) == 0 {
            registry.drop_token(&digest);
        } else {
            let standing = match dice.below(4) {
                0 => TokenStanding::Next { use_before: at(dice.below(9)) },
                1 => TokenStanding::Debug { until: at(dice.below(9)) },
                2 => TokenStanding::Tombstone,
                _ => TokenStanding::Current,
            };
            let proxy = Uuid::from_u128(u128::from(dice.below(5)));
            registry.put_token(CtrlToken { digest, proxy, standing });
        }
        let with = |fits: &dyn Fn(&CtrlToken) -> bool| {
            let found = registry.tokens.values().filter(|token| fits(token));
            sorted(found.map(|token| *token.digest.as_bytes()).collect())
        };
        let digests =
            |found: Vec<&CtrlToken>| sorted(found.iter().map(|token| *token.digest.as_bytes()).collect());
        for proxy in (0..6).map(Uuid::from_u128) {
            let found = registry.tokens_of(proxy).collect();
            assert_eq!(digests(found), with(&|token| token.proxy == proxy), "step {step}");
        }
        for now in (0..10).map(at) {
            let found = registry.past_tokens(now).collect();
            let is_past = |token: &CtrlToken| token.end().is_some_and(|end| end <= now);
            assert_eq!(digests(found), with(&is_past), "step {step}");
        }
    }
}
