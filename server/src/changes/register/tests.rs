use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use pulse_proto::Clock;

use super::*;
use crate::accounts::{Accounts, Credential, CredentialKind};
use crate::catalog::Catalog;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// A fleet with one API token, which has this scope and ends at this time.
fn catalog(api: TokenDigest, scope: ApiScope, expires_at: SystemTime) -> Catalog {
    let mut accounts = Accounts::default();
    let kind = CredentialKind::Api { name: "installer".to_owned(), scopes: BTreeSet::from([scope]) };
    let (id, created_at) = ("0a1b2c3d".to_owned(), NOW);
    let credential = Credential { id, digest: api, kind, created_at, expires_at, ended_at: None };
    accounts.put_credential(Arc::new(credential));
    let (inventory, registry) = Default::default();
    let audit_hash = Arc::from("");
    Catalog { server_id: Uuid::nil(), epoch: 1, revision: 1, audit_hash, inventory, registry, accounts }
}

fn fleet() -> Fleet {
    Fleet::new(Duration::from_secs(60), [], Clock::driven(|| NOW))
}

fn host(api: Option<TokenDigest>, older: Option<Older>) -> Registration {
    Registration {
        join: None,
        api,
        proven: None,
        hostname: "delly".to_owned(),
        kind: ProxyKind::Socket,
        proxy_url: String::new(),
        machine_id: String::new(),
        version: String::new(),
        peer: Some([192, 0, 2, 1].into()),
        older,
    }
}

fn digest(kind: TokenKind) -> TokenDigest {
    Token::generate(kind).expect("the system has random bytes").digest()
}

#[test]
fn an_api_token_that_may_register_vouches_for_a_host_as_a_join_token_does() {
    let (api, later) = (digest(TokenKind::Api), NOW + Duration::from_secs(1));
    let catalog = catalog(api, ApiScope::ProxiesRegister, later);
    let mut draft = Draft::new(&catalog, NOW);
    let decided = decide(&mut draft, &fleet(), &host(Some(api), None), digest(TokenKind::Ctrl));
    let ((proxy, is_proven, instance), _) = decided.expect("the token is good");
    assert!(proxy.is_approved && !is_proven && instance.is_none());
    assert_eq!(proxy.scope_kind, ScopeKind::Instance);
}

#[test]
fn an_api_token_that_ended_or_is_for_other_things_registers_nobody() {
    let (api, later) = (digest(TokenKind::Api), NOW + Duration::from_secs(1));
    for (known, scope, ends) in [
        (digest(TokenKind::Api), ApiScope::ProxiesRegister, later),
        (api, ApiScope::SettingsWrite, later),
        (api, ApiScope::ProxiesRegister, NOW),
    ] {
        let catalog = catalog(known, scope, ends);
        let mut draft = Draft::new(&catalog, NOW);
        let error = decide(&mut draft, &fleet(), &host(Some(api), None), digest(TokenKind::Ctrl)).err();
        assert!(matches!(error, Some(ChangeError::Join { reason: reason::UNKNOWN_TOKEN, .. })), "{error:?}");
        assert!(draft.is_empty());
    }
}

#[test]
fn only_an_older_installer_takes_the_place_of_a_token_that_nobody_used() {
    let (api, later) = (digest(TokenKind::Api), NOW + Duration::from_secs(1));
    let (catalog, fleet) = (catalog(api, ApiScope::ProxiesRegister, later), fleet());
    let older = Some(Older { may_wait: true });
    let mut draft = Draft::new(&catalog, NOW);
    let first = decide(&mut draft, &fleet, &host(Some(api), older), digest(TokenKind::Ctrl));
    let ((first, ..), _) = first.expect("the token is good");
    let (after, ..) = draft.finish();
    let again = |fleet: &Fleet, new: Registration| {
        let mut draft = Draft::new(&after, NOW);
        decide(&mut draft, fleet, &new, digest(TokenKind::Ctrl)).expect("the token is good").0.0.id
    };
    let of = |older| host(Some(api), older);
    assert_eq!(again(&fleet, of(older)), first.id);
    assert_ne!(again(&fleet, of(None)), first.id, "what speaks gRPC shows who it is");
    let from = |address: [u8; 4]| Registration { peer: Some(address.into()), ..of(older) };
    assert_ne!(again(&fleet, from([192, 0, 2, 2])), first.id);
    let named = Registration { hostname: "minipc".to_owned(), ..of(older) };
    assert_ne!(again(&fleet, named), first.id);
    fleet.seen(first.id);
    assert_ne!(again(&fleet, of(older)), first.id, "somebody works with its token");
}
