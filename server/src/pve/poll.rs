//! One poll of one instance: its hosts in turn until one answers as a whole; over one connection, one question after the other.
//!
//! In: where and as whom to ask. Out: what a host said of its cluster, or of each host why not. Always: one host that hangs costs
//! no more than the time of one poll. Never: puts together what two hosts said.

use super::Doubt;
use super::address::PveUrl;
use super::answers::{self, Membership, Version};
use super::certificate::Trust;
use super::client::{ApiToken, Client};

/// Where and as whom an instance is asked.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its hosts, the first one first. Not empty.
    pub urls: Vec<PveUrl>,
    /// The token that is shown.
    pub token: ApiToken,
    /// Whose certificate is trusted.
    pub trust: Trust,
}

/// What a host said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The host that answered.
    pub url: PveUrl,
    /// Its version.
    pub version: Version,
    /// Its cluster.
    pub membership: Membership,
}

/// Why no host's answer can be used: each with its reason, in the order in which they were asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unheard(pub Vec<(PveUrl, Doubt)>);

/// Asks the hosts in turn.
///
/// # Errors
/// [`Unheard`] if none of them answered as a whole.
pub async fn poll(source: &Source) -> Result<Told, Unheard> {
    let mut doubts = Vec::new();
    for url in &source.urls {
        match ask(url, source).await {
            Ok(told) => return Ok(told),
            Err(doubt) => doubts.push((url.clone(), doubt)),
        }
    }
    Err(Unheard(doubts))
}

/// Asks all hosts at one time, for somebody who waits: the first in their order that answers as a whole.
///
/// # Errors
/// [`Unheard`] if none of them did.
pub async fn poll_at_once(source: &Source) -> Result<Told, Unheard> {
    let asking = source.urls.iter().map(|url| {
        let (url, source) = (url.clone(), source.clone());
        tokio::spawn(async move { (ask(&url, &source).await, url) })
    });
    let asking: Vec<_> = asking.collect();
    let mut doubts = Vec::new();
    for asked in asking {
        match asked.await {
            Ok((Ok(told), _)) => return Ok(told),
            Ok((Err(doubt), url)) => doubts.push((url, doubt)),
            Err(error) => tracing::error!(%error, "asking a host panicked: a defect"),
        }
    }
    Err(Unheard(doubts))
}

async fn ask(url: &PveUrl, source: &Source) -> Result<Told, Doubt> {
    let mut client = Client::connect(url, &source.token, &source.trust).await?;
    let version = answers::version(&client.get("/version").await?)?;
    let membership = answers::membership(&client.get("/cluster/status").await?)?;
    let asked_further = async {
        answers::agree(&membership, &answers::nodes("/nodes", &client.get("/nodes").await?)?)?;
        // Who may see the nodes may see what runs on them; what is hidden there is no doubt of who is a member.
        answers::nodes("/cluster/resources", &client.get("/cluster/resources").await?)
    };
    match asked_further.await {
        Ok(_) => Ok(Told { url: url.clone(), version, membership }),
        Err(doubt) => Err(with_offline(doubt, &membership)),
    }
}

/// A refusal names no node; those that the cluster calls offline are the ones to look at.
fn with_offline(doubt: Doubt, membership: &Membership) -> Doubt {
    let offline = membership.members.iter().filter(|member| !member.is_online);
    let offline: Vec<&str> = offline.map(|member| member.name.as_str()).collect();
    match doubt {
        Doubt::Refused(text) if !offline.is_empty() => {
            Doubt::Refused(format!("{text}; offline, says the cluster: {}", offline.join(", ")))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use pulse_test_support::proxmox::{FakeProxmox, Reply};

    use super::*;
    use crate::pve::certificate::Fingerprint;

    fn source(fakes: &[&FakeProxmox]) -> Source {
        Source {
            urls: fakes.iter().map(|fake| fake.url().parse().unwrap()).collect(),
            token: ApiToken::new("pulse@pve!monitor", "secret").unwrap(),
            trust: Trust::Pinned(fakes.iter().map(|fake| Fingerprint::of(&fake.certificate())).collect()),
        }
    }

    #[tokio::test]
    async fn the_first_host_that_answers_as_a_whole_is_believed() {
        let (first, second) =
            (FakeProxmox::cluster(&["pve1", "pve2"]), FakeProxmox::cluster(&["pve1", "pve2"]));
        let source = source(&[&first, &second]);
        let told = poll(&source).await.unwrap();
        assert_eq!((told.url.to_string(), told.version.text.as_str()), (first.url(), "8.4.1"));
        assert_eq!(first.asked(), ["/version", "/cluster/status", "/nodes", "/cluster/resources"]);
        assert!(second.asked().is_empty());
        // The first is in the part of the cluster that lost the quorum.
        first.answer("/cluster/status", Reply::of(r#"{"data":[{"type":"cluster","quorate":0,"nodes":2},{"type":"node","name":"pve1"},{"type":"node","name":"pve2"}]}"#));
        assert_eq!(poll(&source).await.unwrap().url.to_string(), second.url());
    }

    #[tokio::test]
    async fn of_each_host_that_cannot_be_believed_it_is_said_why() {
        let (refuses, half) =
            (FakeProxmox::cluster(&["pve1", "pve2"]), FakeProxmox::cluster(&["pve1", "pve2"]));
        refuses.answer("/cluster/status", Reply::refusal(403, "Permission check failed (/, Sys.Audit)"));
        half.answer("/nodes", Reply::of(r#"{"data":[{"node":"pve1"}]}"#));
        let Unheard(doubts) = poll(&source(&[&refuses, &half])).await.unwrap_err();
        let texts: Vec<String> = doubts.iter().map(|(_, doubt)| doubt.to_string()).collect();
        assert!(texts[0].contains("lacks the privilege Sys.Audit"), "{texts:?}");
        assert!(texts[1].contains("not whole"), "{texts:?}");
    }
}
