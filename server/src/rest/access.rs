//! [`Caller`]: who asks the admin API, as an extractor.
//!
//! In: what the way in knows of a request. Out: the caller, with the actor that the audit log names.
//! Always: a request without a caller is not served.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::refusal::Refusal;
use crate::accounts::ApiScope;
use crate::audit::{Actor, Who};
use crate::listen::admin_socket::AdminPeer;

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    /// A local admin, on the Unix socket: may everything.
    Local {
        /// The user id.
        uid: u32,
    },
    /// An admin who logged in.
    #[expect(dead_code, reason = "the socket is the only way in yet")]
    User {
        /// The admin's name.
        name: String,
        /// The id of the session.
        session: String,
        /// The address.
        from: Option<IpAddr>,
    },
    /// A program with an API token.
    #[expect(dead_code, reason = "the socket is the only way in yet")]
    Token {
        /// The token's id.
        id: String,
        /// What it is good for.
        scopes: BTreeSet<ApiScope>,
        /// The address.
        from: Option<IpAddr>,
    },
}

impl Caller {
    /// Who makes the change, for the audit log.
    pub(super) fn actor(&self) -> Actor {
        match self {
            Caller::Local { uid } => Actor::admin(*uid),
            Caller::User { name, from, .. } => Actor { who: Who::User(name.clone()), from: *from },
            Caller::Token { id, from, .. } => Actor { who: Who::Token(id.clone()), from: *from },
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Caller, Refusal> {
        let known = || parts.extensions.get::<Caller>().cloned();
        let local = parts.extensions.get::<AdminPeer>().map(|peer| Caller::Local { uid: peer.uid });
        let text = "nobody is known to have asked this: log in, or send an API token";
        local.or_else(known).ok_or_else(|| {
            Refusal::new(StatusCode::UNAUTHORIZED, pulse_proto::reason::MISSING_TOKEN, text.to_owned())
        })
    }
}
