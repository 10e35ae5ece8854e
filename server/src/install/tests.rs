use std::os::unix::fs::symlink;
use std::path::Path;

use axum::body::to_bytes;
use axum::http::HeaderMap;
use pulse_proto::hash::sha256;
use pulse_proto::hex;
use tower::ServiceExt;

use super::*;
use crate::config::{Config, ConfigSources};

fn files_of(folder: &Path) -> Router {
    let (config, _) = Config::load(&ConfigSources::default()).expect("the defaults are good");
    router(folder.to_owned(), Arc::new(CallLimits::of(&config)))
}

async fn ask(router: &Router, method: &str, path: &str, known: Option<&str>) -> (u16, HeaderMap, Vec<u8>) {
    let mut request = axum::http::Request::builder().method(method).uri(path);
    if let Some(known) = known {
        request = request.header(IF_NONE_MATCH, known);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    (head.status.as_u16(), head.headers, to_bytes(body, 1 << 24).await.unwrap().to_vec())
}

#[tokio::test]
async fn a_file_comes_whole_with_its_checksum_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(folder.path().join("pulse-sensor-proxy-linux-amd64"), &content).unwrap();
    let router = files_of(folder.path());
    let sum = hex::encode(&sha256(&content));
    for path in
        ["/api/install/pulse-sensor-proxy?arch=linux-amd64", "/api/install/pulse-sensor-proxy-linux-amd64"]
    {
        let (status, headers, body) = ask(&router, "GET", path, None).await;
        assert!(status == 200 && body == content, "{path}: {status}");
        assert_eq!(headers[CHECKSUM], sum.as_str());
        assert_eq!(headers[CONTENT_LENGTH], "4000000");
        let tag = headers[ETAG].to_str().unwrap();
        assert_eq!(ask(&router, "GET", path, Some(tag)).await.0, 304);
        assert_eq!(ask(&router, "GET", path, Some("\"other\"")).await.0, 200);
        let (status, headers, body) = ask(&router, "HEAD", path, None).await;
        assert_eq!((status, &headers[CONTENT_LENGTH], body.len()), (200, &"4000000".parse().unwrap(), 0));
    }
    for path in [
        "/api/install/pulse-sensor-proxy-linux-amd64.sha256",
        "/api/install/pulse-sensor-proxy.sha256?arch=linux-amd64",
    ] {
        let (status, _, body) = ask(&router, "GET", path, None).await;
        let text = format!("{sum}  pulse-sensor-proxy-linux-amd64\n");
        assert_eq!((status, String::from_utf8(body).unwrap()), (200, text));
    }
    std::fs::write(folder.path().join("pulse-sensor-proxy-linux-amd64"), "new").unwrap();
    let (_, headers, body) = ask(&router, "GET", "/api/install/pulse-sensor-proxy-linux-amd64", None).await;
    assert_eq!((headers[CHECKSUM].to_str().unwrap(), &*body), (&*hex::encode(&sha256(b"new")), &b"new"[..]));
}

#[tokio::test]
async fn nothing_but_files_of_the_folder_is_given_out() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("install");
    std::fs::create_dir_all(folder.join("below")).unwrap();
    std::fs::write(outer.path().join("secret"), "secret").unwrap();
    std::fs::write(folder.join(".hidden"), "hidden").unwrap();
    std::fs::write(folder.join("below/file"), "below").unwrap();
    symlink(outer.path().join("secret"), folder.join("out")).unwrap();
    symlink("../secret", folder.join("up")).unwrap();
    symlink("below/file", folder.join("within")).unwrap();
    symlink("nowhere", folder.join("dangling")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let router = files_of(&folder);
    for path in [
        "",
        "/",
        "/..",
        "/../secret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/..%2fsecret",
        "/%2fetc%2fpasswd",
        "//etc/passwd",
        "/below/file",
        "/below",
        "/.hidden",
        "/%2ehidden",
        "/out",
        "/up",
        "/dangling",
        "/pipe",
        "/missing",
        "/out.sha256",
        "/.sha256",
        "/secret?arch=/../x",
        "/..?arch=x",
        "/a%00",
    ] {
        let (status, _, body) = ask(&router, "GET", &format!("/api/install{path}"), None).await;
        let body = String::from_utf8(body).unwrap();
        assert!(status == 404 && body.starts_with("there is no such file"), "{path}: {status} {body}");
    }
    assert_eq!(ask(&router, "GET", "/api/install/within", None).await.2, b"below");
    let (status, headers, _) = ask(&router, "POST", "/api/install/within", None).await;
    assert_eq!((status, &headers[ALLOW]), (405, &"GET, HEAD".parse().unwrap()));
}

#[tokio::test]
async fn who_finds_nothing_is_told_where_to_put_it() {
    let router = files_of(Path::new("/nowhere/at/all"));
    let (status, _, body) = ask(&router, "GET", "/api/install/install-sensor-proxy.sh", None).await;
    let body = String::from_utf8(body).unwrap();
    assert!(status == 404 && body.contains("install_dir"), "{body}");
    assert!(body.contains("install-sensor-proxy.sh") && !body.contains("/nowhere"), "{body}");
}

#[tokio::test]
async fn one_address_fetches_a_few_at_a_time_and_leaves_the_rest_to_others() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "content").unwrap();
    let router = files_of(folder.path());
    let from = async |address: &str| {
        let peer = Peer { address: address.parse().unwrap() };
        let request = axum::http::Request::get("/api/install/file").extension(peer);
        router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(from("192.0.2.1:5").await);
    }
    let answer = from("192.0.2.1:5").await;
    assert_eq!((answer.status().as_u16(), &answer.headers()[RETRY_AFTER]), (503, &"2".parse().unwrap()));
    assert_eq!(from("192.0.2.2:5").await.status(), 200);
    held.clear();
    assert_eq!(from("192.0.2.1:5").await.status(), 200);
}
