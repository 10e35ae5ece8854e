//! Why there is no certificate, or no new one: each with what to do about it.

use std::path::PathBuf;

/// Why there is no certificate, or no new one.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {}: does it exist, and may the server's user read it?", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate that can be read; it must be PEM, the server's own certificate first", .0.display())]
    NoCertificate(PathBuf),
    /// A file holds no key.
    #[error("{} holds no private key that can be read; it must be PEM and without a passphrase", .0.display())]
    NoKey(PathBuf),
    /// The key is of a kind that TLS here does not know.
    #[error("the key in {} cannot be used; use ECDSA P-256 or RSA of at least 2048 bits", path.display())]
    UnfitKey {
        /// The key's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Key and certificate are of different pairs.
    #[error(
        "the key in {} does not belong to the first certificate in {}; the server's own certificate stands first, \
         those that signed it after it", key.display(), certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate is past its time.
    #[error("the certificate in {} ended at {at}; put a newer one in its place, or correct the clock", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When, in UTC.
        at: String,
    },
    /// The certificate's time has not come.
    #[error("the certificate in {} is good from {at} only; correct the clock, or use another", path.display())]
    NotYetValid {
        /// The certificate's file.
        path: PathBuf,
        /// When, in UTC.
        at: String,
    },
    /// `ca.key` is missing beside `ca.pem`.
    #[error(
        "ca.pem is in {} but ca.key is not; restore ca.key from a backup. Or remove ca.pem, server.pem and \
         server.key to begin with a new authority: every proxy must then be registered again, because it trusts the \
         old one", .0.display()
    )]
    AuthorityKeyLost(PathBuf),
    /// The authority is missing beside a certificate that it signed.
    #[error(
        "server.pem or server.key is in {} but ca.pem and ca.key are not; restore both from a backup. Or remove \
         server.pem and server.key to begin with a new authority: every proxy must then be registered again, because \
         it trusts the old one", .0.display()
    )]
    AuthorityLost(PathBuf),
    /// `ca.key` and `ca.pem` are of different pairs.
    #[error(
        "ca.key and ca.pem in {} do not belong together; restore both from the same backup. If ca.key is the right \
         one, remove ca.pem, and it is made again from the key", .0.display()
    )]
    AuthorityMismatch(PathBuf),
    /// `ca.key` became another while the server ran.
    #[error("ca.key in {} is another than at start; restart the server to use it", .0.display())]
    AuthorityChanged(PathBuf),
    /// The fleet's servers have another authority.
    #[error(
        "the authority in {} is not the one that the other servers on this database have, whose pin proxies hold; if no proxy was \
         registered with this one, move ca.pem, ca.key, server.pem and server.key away, and the fleet's is taken over", .0.display()
    )]
    OtherAuthority(PathBuf),
    /// The certificate is not for servers.
    #[error(
        "the certificate in {} is not for servers (its extended key usage lacks serverAuth), so every client would refuse it; \
         use another", .0.display()
    )]
    Purpose(PathBuf),
    /// There is no authority of Pulse's own.
    #[error(
        "the certificate is the operator's own (tls.certificate_file), so there is no key of Pulse's to exchange; put new files \
         in place of those, and they are taken at once"
    )]
    NoAuthority,
    /// One exchange at a time.
    #[error(
        "an exchange of the authority's key is under way since {0}; end it with `pulse tls finish` before the next one begins"
    )]
    ExchangeUnderWay(String),
    /// There is nothing to finish.
    #[error("no exchange of the authority's key is under way; `pulse tls rotate` begins one")]
    NoExchange,
    /// A certificate cannot be made.
    #[error("make a certificate")]
    Make(#[source] rcgen::Error),
    /// The system gives no random bytes.
    #[error("get random bytes from the system")]
    Random,
    /// The TLS library refuses its set-up.
    #[error("set up TLS")]
    Library(#[source] rustls::Error),
}
