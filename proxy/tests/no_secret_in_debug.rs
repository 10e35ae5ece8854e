//! No type that holds a secret shows it: what `{:?}` prints may stand in a log one day.

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use pulse_proto::{JoinString, Token, TokenKind};
use pulse_sensor_proxy::args::{Args, Command};
use pulse_sensor_proxy::config::ControlPlane;
use pulse_sensor_proxy::identity::{Home, Hostname, Pending, ProxyKind};
use pulse_sensor_proxy::link::Link;
use pulse_sensor_proxy::seams::Seams;
use pulse_sensor_proxy::sync::standing::Standing;
use pulse_sensor_proxy::tls::{self, Trust};

#[track_caller]
fn assert_veiled(shown: &str, secrets: &[&Token]) {
    for secret in secrets {
        // A part of it would be too much as well.
        let part = &secret.reveal()[8..24];
        assert!(
            !shown.contains(part),
            "a secret is shown by {:.40}…",
            shown.split(part).next().unwrap_or_default()
        );
    }
}

#[tokio::test]
async fn what_holds_a_token_does_not_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let [join, ctrl] = [TokenKind::Join, TokenKind::Ctrl].map(|kind| Token::generate(kind).unwrap());
    let secrets = [&join, &ctrl];
    let string = JoinString { host: "pulse.lan".to_owned(), port: 1, pin: None, join: Some(join.clone()) };
    assert_veiled(&format!("{string:?} {join:?} {:?}", join.digest()), &secrets);

    let args = ["pulse-sensor-proxy", "register", "--join", &string.reveal()];
    let args = Args::try_parse_from(args).unwrap();
    assert!(matches!(&args.command, Command::Register(given) if given.join.is_some()));
    assert_veiled(&format!("{args:?} {args:#?}"), &secrets);

    let pending = Pending {
        join: string,
        hostname: Hostname { name: "delly".to_owned(), is_given: true },
        kind: ProxyKind::Socket,
        proxy_url: String::new(),
        machine_id: String::new(),
    };
    assert_veiled(&format!("{pending:?} {pending:#?}"), &secrets);

    let token_file = folder.path().join("token");
    fs::write(&token_file, ctrl.reveal()).unwrap();
    let control = ControlPlane {
        url: "https://127.0.0.1:1".parse().unwrap(),
        token_file,
        refresh_interval: Duration::from_secs(60),
        insecure_skip_verify: false,
        ca_file: None,
        pin: None,
    };
    let standing = Standing::load(Home::new(Path::new(folder.path())), control.clone());
    assert!(standing.token().is_some_and(|token| *token == ctrl), "the token is there to be shown");
    assert_veiled(&format!("{standing:?} {standing:#?}"), &secrets);

    let link =
        Link::new(control.url, tls::client_config(&Trust::Unchecked).unwrap(), Seams::system().network);
    link.use_token(Some(&ctrl));
    link.prove_with(Some(&ctrl));
    assert_veiled(&format!("{link:?} {link:#?}"), &secrets);
}
