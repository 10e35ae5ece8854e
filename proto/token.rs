//! [`Token`]: the secrets with which proxies and installers say who they are.
//!
//! Always: 256 random bits; what is stored is the SHA-256, and its comparison takes the same time
//! whatever it finds. Never: shown by `Debug`.

use std::fmt;

use aws_lc_rs::{constant_time, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::hash::sha256;
use crate::hex;

/// What a token is for; its prefix says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// A proxy's own, `pctl_…`.
    Ctrl,
    /// An installer's, to register a proxy, `pjoin_…`.
    Join,
    /// The bearer of a proxy's own HTTP listener, `plsn_…`.
    Listener,
    /// A person's, to watch what a proxy is pushed, `pdbg_…`.
    Debug,
    /// A program's, for the API, `papi_…`.
    Api,
    /// A log-in's, in a browser's cookie, `psess_…`.
    Session,
    /// An admin's, to set a password once, `pset_…`.
    SetUp,
}

impl TokenKind {
    /// Every kind.
    const ALL: [TokenKind; 7] = [
        TokenKind::Ctrl,
        TokenKind::Join,
        TokenKind::Listener,
        TokenKind::Debug,
        TokenKind::Api,
        TokenKind::Session,
        TokenKind::SetUp,
    ];

    /// The kind that a text begins like; `None`: it begins like none.
    pub fn of(text: &str) -> Option<TokenKind> {
        TokenKind::ALL.into_iter().find(|kind| text.starts_with(kind.prefix()))
    }

    /// The beginning of each token of this kind.
    pub fn prefix(self) -> &'static str {
        match self {
            TokenKind::Ctrl => "pctl_",
            TokenKind::Join => "pjoin_",
            TokenKind::Listener => "plsn_",
            TokenKind::Debug => "pdbg_",
            TokenKind::Api => "papi_",
            TokenKind::Session => "psess_",
            TokenKind::SetUp => "pset_",
        }
    }
}

/// The fewest characters of a token that another program made: older servers made 44, and 32 of base64 still hold 192 bits.
const FEWEST_PRESENTED: usize = 32;
/// The most.
const MOST_PRESENTED: usize = 512;

/// A secret: a prefix and 256 random bits in base64url, or what an older server made in its place. Cleared from memory when
/// dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

/// The SHA-256 of a token: what the server stores and looks up.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

/// Why a text is no token. Never holds the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Another kind of secret, or none.
    #[error("it is no {0} token: those begin with {prefix}", prefix = .1)]
    Kind(&'static str, &'static str),
    /// The right beginning, but not 256 bits in base64url.
    #[error("the token is damaged: after {0} come 43 characters of base64url; copy it again, whole")]
    Damaged(&'static str),
    /// The system gave no random bytes.
    #[error("make a token: the system gave no random bytes")]
    Random,
}

impl Token {
    /// Makes a new token.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn generate(kind: TokenKind) -> Result<Token, TokenError> {
        let mut bits = Zeroizing::new([0; 32]);
        rand::fill(bits.as_mut_slice()).map_err(|_| TokenError::Random)?;
        Ok(Token(Zeroizing::new(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bits.as_slice())))))
    }

    /// Reads a token of one kind; white space around it is ignored.
    ///
    /// # Errors
    /// [`TokenError`], which never shows the text.
    pub fn parse(kind: TokenKind, text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        let name = match kind {
            TokenKind::Ctrl => "ctrl",
            TokenKind::Join => "join",
            TokenKind::Listener => "listener",
            TokenKind::Debug => "debug",
            TokenKind::Api => "API",
            TokenKind::Session => "session",
            TokenKind::SetUp => "set-up",
        };
        let bits = text.strip_prefix(kind.prefix()).ok_or(TokenError::Kind(name, kind.prefix()))?;
        match URL_SAFE_NO_PAD.decode(bits).map(Zeroizing::new) {
            Ok(bits) if bits.len() == 32 => Ok(Token(Zeroizing::new(text.to_owned()))),
            _ => Err(TokenError::Damaged(kind.prefix())),
        }
    }

    /// Reads what a proxy shows as its ctrl token: one of today, or one that an older server made, which looks like nothing in
    /// particular. Whether it is good, only its digest tells. White space around it is ignored.
    ///
    /// # Errors
    /// [`TokenError`], as [`Token::parse`] has it for a ctrl token: the text begins like another kind of secret, or like a ctrl token
    /// and is none, or is not 32 to 512 visible characters of ASCII.
    pub fn presented(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        // It comes in a header, where nothing else can stand.
        let is_one_word = text.bytes().all(|byte| byte.is_ascii_graphic());
        if TokenKind::of(text).is_none()
            && is_one_word
            && (FEWEST_PRESENTED..=MOST_PRESENTED).contains(&text.len())
        {
            return Ok(Token(Zeroizing::new(text.to_owned())));
        }
        Token::parse(TokenKind::Ctrl, text)
    }

    /// The secret itself, for the one place that sends or stores it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Its SHA-256.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(sha256(self.0.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl TokenDigest {
    /// Takes a digest from where it was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> TokenDigest {
        TokenDigest(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Takes the same time whatever it finds.
impl PartialEq for TokenDigest {
    fn eq(&self, other: &TokenDigest) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for TokenDigest {}

/// The first 8 hex digits: enough to tell two apart, not to find one.
impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({}…)", hex::encode(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_has_its_prefix_and_256_bits() {
        let token = Token::generate(TokenKind::Ctrl).unwrap();
        assert!(token.reveal().starts_with("pctl_") && token.reveal().len() == 5 + 43);
        assert_eq!(Token::parse(TokenKind::Ctrl, &format!(" {}\n", token.reveal())).unwrap(), token);
        assert_ne!(token.digest(), Token::generate(TokenKind::Ctrl).unwrap().digest());
    }

    #[test]
    fn another_kind_or_a_damaged_token_is_told_apart_and_not_shown() {
        let join = Token::generate(TokenKind::Join).unwrap();
        let other = Token::parse(TokenKind::Ctrl, join.reveal()).unwrap_err();
        let damaged = Token::parse(TokenKind::Join, &join.reveal()[..40]).unwrap_err();
        assert!(other.to_string().contains("pctl_") && damaged.to_string().contains("damaged"));
        for text in [other.to_string(), damaged.to_string(), format!("{join:?} {:?}", join.digest())] {
            assert!(!text.contains(&join.reveal()[8..30]));
        }
    }

    #[test]
    fn a_proxy_may_show_a_token_that_an_older_server_made() {
        let older = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF-=";
        let shown = Token::presented(&format!(" {older}\r\n")).unwrap();
        assert_eq!(shown.reveal(), older);
        assert_eq!(shown.digest().as_bytes(), &sha256(older.as_bytes()));
        assert!(!format!("{shown:?}").contains(older));
        let ours = Token::generate(TokenKind::Ctrl).unwrap();
        assert_eq!(Token::presented(ours.reveal()), Ok(ours.clone()));
        for bounds in [32, 512] {
            assert!(Token::presented(&"a".repeat(bounds)).is_ok());
        }
    }

    #[test]
    fn what_no_proxy_can_have_as_its_token_is_refused_as_before() {
        let join = Token::generate(TokenKind::Join).unwrap();
        let ours = Token::generate(TokenKind::Ctrl).unwrap();
        let (short, long) = ("a".repeat(31), "a".repeat(513));
        let listener = format!("plsn_{}", "a".repeat(43));
        for text in [
            "",
            &short,
            &long,
            join.reveal(),
            &listener,
            &ours.reveal()[..40],
            "two words that have more than 32 characters",
            "hidden-schlüssel-hidden-schlüssel-hidden",
        ] {
            assert_eq!(Token::presented(text), Token::parse(TokenKind::Ctrl, text), "{text:?}");
            assert!(Token::presented(text).is_err(), "{text:?}");
        }
    }
}
