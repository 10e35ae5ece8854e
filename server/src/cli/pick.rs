//! Which proxy was meant: an id, the beginning of one, or a hostname.
//!
//! Always: exactly one, or an error that names those it could be. Never: guesses.

use uuid::Uuid;

use super::failure::Failure;
use super::text;
use crate::api::Proxy;

/// The fewest characters of an id that are taken for its beginning.
const MIN_PREFIX: usize = 4;

/// Finds the proxy of this hostname (case-blind), or whose id begins so.
///
/// A hostname that fits exactly wins over the beginning of an id, since a host may be called `cafe`.
///
/// # Errors
/// None fits, several do, or it is too short to be meant.
pub(super) fn proxy(proxies: &[Proxy], named: &str) -> Result<Uuid, Failure> {
    let by_name: Vec<&Proxy> =
        proxies.iter().filter(|proxy| proxy.hostname.eq_ignore_ascii_case(named)).collect();
    if !by_name.is_empty() {
        return only(&by_name, named);
    }
    let is_hex = |c: char| c.is_ascii_hexdigit() || c == '-';
    if named.chars().all(is_hex) && named.len() >= MIN_PREFIX {
        let prefix = named.to_ascii_lowercase();
        let begins = |proxy: &&Proxy| {
            proxy.id.to_string().starts_with(&prefix) || proxy.id.simple().to_string().starts_with(&prefix)
        };
        let by_id: Vec<&Proxy> = proxies.iter().filter(begins).collect();
        if !by_id.is_empty() {
            return only(&by_id, named);
        }
    }
    if named.chars().all(is_hex) && named.len() < MIN_PREFIX {
        let text = format!(
            "{named:?} is too short: give {MIN_PREFIX} or more characters of the id, or the hostname"
        );
        return Err(Failure::usage("TOO_SHORT", text));
    }
    let text = format!("no proxy has the id or the hostname {named:?}; `pulse proxy list` shows all");
    Err(Failure::local("NOT_FOUND", text))
}

fn only(fitting: &[&Proxy], named: &str) -> Result<Uuid, Failure> {
    if let [one] = fitting {
        return Ok(one.id);
    }
    let names =
        fitting.iter().take(5).map(|proxy| format!("{} ({})", proxy.id, text::clean(&proxy.hostname)));
    let more = if fitting.len() > 5 { ", …" } else { "" };
    let names = names.collect::<Vec<_>>().join(", ");
    let text = format!("{named:?} fits {} proxies: {names}{more}; give more of the id", fitting.len());
    Err(Failure::local("AMBIGUOUS", text))
}

#[cfg(test)]
mod tests {
    use super::super::tests::proxy_of;
    use super::*;

    const FIRST: &str = "0192d3a8-7f3c-7d3e-8a51-0242ac120002";
    const SECOND: &str = "0192d3a8-8000-7d3e-8a51-0242ac120002";
    const THIRD: &str = "cafe0000-8000-7d3e-8a51-0242ac120002";

    fn pick(named: &str) -> Result<String, String> {
        let proxies = [proxy_of(FIRST, "delly"), proxy_of(SECOND, "pve"), proxy_of(THIRD, "Pve")];
        proxy(&proxies, named).map(|id| id.to_string()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_proxy_is_found_by_an_unambiguous_beginning_or_hostname() {
        for named in [FIRST, "0192d3a8-7f", "0192D3A87F3C", "DELLY"] {
            assert_eq!(pick(named).as_deref(), Ok(FIRST), "{named}");
        }
        assert_eq!(pick("cafe").as_deref(), Ok(THIRD));
    }

    #[test]
    fn what_fits_several_names_them() {
        for (named, fits) in [("0192", [FIRST, SECOND]), ("pve", [SECOND, THIRD])] {
            let error = pick(named).unwrap_err();
            assert!(fits.iter().all(|id| error.contains(id)), "{error}");
        }
    }

    #[test]
    fn what_fits_none_says_where_to_look() {
        assert!(pick("019").unwrap_err().contains("too short"));
        assert!(pick("beef1234").unwrap_err().contains("pulse proxy list"));
        assert!(pick("unknown\u{1b}").unwrap_err().contains("\\u{1b}"));
    }

    #[test]
    fn a_hostname_wins_over_the_beginning_of_an_id() {
        let proxies = [proxy_of(THIRD, "delly"), proxy_of(FIRST, "cafe")];
        assert_eq!(proxy(&proxies, "cafe").unwrap().to_string(), FIRST);
    }
}
