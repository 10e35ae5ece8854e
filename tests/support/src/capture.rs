//! What every program of the tests said, kept in files for the search for secrets at the end (`scripts/secrets.sh`).
//!
//! In: arguments, standard output and error, answers. Out: `target/test-output/TEST_FILE/TEST.….txt`, written anew by each
//! run. And, elsewhere, the keys of the servers that were started, so that the search knows what to look for:
//! `target/test-secrets`, which nobody else may read.
//! Always: what is a secret's own place (the answer to whoever asked for a new one) is left out by name, in `REVEALING`
//! and `REVEALING_PATHS`, and nothing else is.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{LazyLock, Mutex};

use crate::process::Ran;

/// Commands whose standard output is the one place where a secret is shown.
const REVEALING: [[&str; 2]; 5] =
    [["join", "create"], ["proxy", "debug-token"], ["admin", "add"], ["admin", "reset"], ["token", "create"]];

/// What the paths end in, to which a `POST` is answered with a secret.
const REVEALING_PATHS: [&str; 7] = [
    "/join-tokens",
    "/debug-token",
    "/backup",
    "/admins",
    "/reset",
    "/api-tokens",
    "/api/temperature-proxy/register",
];

/// Stands in the place of what is left out.
const LEFT_OUT: &str = "(shown to the one who asked for it: not kept)\n";

/// The files that this process has begun.
static BEGUN: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// `target`, and the name of this test's file.
fn places() -> (PathBuf, String) {
    let own = std::env::current_exe().expect("a test knows its executable");
    // target/PROFILE/deps/NAME-HASH
    let target = own.ancestors().nth(3).expect("a test lies in target/PROFILE/deps").to_owned();
    let name = own.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    (target, name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_owned()))
}

/// A file of this test, which is a thread's name; empty if this process has not written to it yet.
fn open(what: &str) -> File {
    let (target, test_file) = places();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("other").replace("::", ".");
    let folder = target.join("test-output").join(test_file);
    let name: String = format!("{test}.{what}.txt").chars().map(|c| if c == '/' { '_' } else { c }).collect();
    begin(&folder, &name)
}

fn begin(folder: &Path, name: &str) -> File {
    fs::create_dir_all(folder).expect("target can be written");
    let path = folder.join(name);
    let is_first = BEGUN.lock().expect("no holder of this lock panics").insert(path.clone());
    if is_first {
        // Another process may be at it, so that it is gone already.
        let _ = fs::remove_file(&path);
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The arguments in one line. A join string behind `--join` is where the person who types it has put it.
fn line(command: &Command) -> String {
    let mut text = format!("$ {}", command.get_program().to_string_lossy());
    let mut is_join = false;
    for argument in command.get_args().map(|argument| argument.to_string_lossy()) {
        text.push(' ');
        text.push_str(if is_join && argument.starts_with("pulse://") { "JOIN_STRING" } else { &argument });
        is_join = argument == "--join";
    }
    text.push('\n');
    text
}

/// Keeps what a command said that ran to its end.
pub fn keep(command: &Command, ran: &Ran) {
    let arguments: Vec<_> = command.get_args().collect();
    let is_revealing = ran.is_success()
        && REVEALING
            .iter()
            .any(|words| arguments.windows(2).any(|pair| pair[0] == words[0] && pair[1] == words[1]));
    let stdout = if is_revealing { LEFT_OUT } else { &ran.stdout };
    let text =
        format!("{}{stdout}--- standard error, exit code {:?}\n{}\n", line(command), ran.code, ran.stderr);
    write(&mut open("commands"), &text);
}

/// The same, of a command that the test itself ran.
pub fn keep_output(command: &Command, output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    keep(command, &Ran { code: output.status.code(), stdout, stderr });
}

/// Keeps the answer to a request over HTTP.
pub(crate) fn keep_answer(method: &str, path: &str, status: u16, head: &str, body: &str) {
    let is_revealing = method == "POST"
        && (200..300).contains(&status)
        && path.split('?').next().is_some_and(|path| REVEALING_PATHS.iter().any(|end| path.ends_with(end)));
    let body = if is_revealing { LEFT_OUT } else { body };
    // A log-in's cookie is the one place of its secret.
    let is_cookie = |line: &&str| line.to_ascii_lowercase().starts_with("set-cookie:");
    let head: Vec<&str> =
        head.lines().map(|line| if is_cookie(&line) { LEFT_OUT.trim_end() } else { line }).collect();
    write(&mut open("answers"), &format!("{method} {path}\n{status}\n{}\n\n{body}\n", head.join("\n")));
}

/// The file for the log of a program that goes on running.
pub(crate) fn log_of(name: &str, command: &Command) -> File {
    let mut file = open(name);
    write(&mut file, &line(command));
    file
}

/// In one call, so that what several threads write does not mix.
pub(crate) fn write(file: &mut File, text: &str) {
    file.write_all(text.as_bytes()).expect("target can be written");
}

/// Tells the search what the keys in a server's data folder look like.
pub(crate) fn note_keys(data_dir: &Path) {
    let (target, test_file) = places();
    let spellings = spellings_of_keys(data_dir);
    write(&mut begin(&target.join("test-secrets"), &format!("{test_file}.txt")), &spellings);
}

/// The keys in a server's data folder, in every spelling in which one could slip out: one a line.
#[must_use]
pub fn spellings_of_keys(data_dir: &Path) -> String {
    let mut spellings = String::new();
    for name in ["ca.key", "server.key", "secret.key", "pulse.db", "pulse.db-wal"] {
        let Ok(bytes) = fs::read(data_dir.join(name)) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        // A PEM line by itself, as it would stand in a message that was cut.
        let lines = text.lines().filter(|line| line.len() >= 40 && line.bytes().all(is_base64));
        lines.clone().for_each(|line| spellings.extend([line, "\n"]));
        let from_pem = base64_decode(&lines.collect::<String>());
        // PKCS#8 of P-256 and of Ed25519: the 32 secret bytes stand behind these (RFC 5208, RFC 5915, RFC 8410).
        for marker in [&[0x02, 0x01, 0x01, 0x04, 0x20][..], &[0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20]] {
            for bytes in [&bytes, &from_pem] {
                let found = bytes.windows(marker.len()).enumerate().filter(|(_, window)| *window == marker);
                found
                    .filter_map(|(at, _)| bytes.get(at + marker.len()..at + marker.len() + 32))
                    .for_each(|key| spell(key, &mut spellings));
            }
        }
        if name == "secret.key" && from_pem.len() == 32 {
            spell(&from_pem, &mut spellings);
        }
    }
    spellings
}

/// Hex, base64 in both alphabets, and a list of numbers, as `Debug` shows bytes.
fn spell(key: &[u8], into: &mut String) {
    let base64 = base64_encode(key);
    let numbers: Vec<String> = key.iter().take(12).map(ToString::to_string).collect();
    let url: String = base64
        .chars()
        .map(|c| {
            if c == '+' {
                '-'
            } else if c == '/' {
                '_'
            } else {
                c
            }
        })
        .collect();
    // Debug of one line, hex of both cases.
    let hex = pulse_proto::hex::encode(key);
    for spelling in [&hex, &hex.to_uppercase(), &base64, &url, &numbers.join(", ")] {
        into.extend([spelling, "\n"]);
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn is_base64(byte: u8) -> bool {
    ALPHABET.contains(&byte) || byte == b'='
}

/// Without padding, as the beginning of the padded text is the same.
fn base64_encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(number >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

/// What is no base64 is passed over.
fn base64_decode(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for value in text.bytes().filter_map(|byte| ALPHABET.iter().position(|letter| *letter == byte)) {
        bits = bits << 6 | u32::try_from(value).expect("there are 64");
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).expect("it is one byte"));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_everybody_else() {
        for (bytes, text) in [(&b"f"[..], "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"foobar", "Zm9vYmFy")] {
            assert_eq!(base64_encode(bytes), text);
            assert_eq!(base64_decode(text), bytes);
        }
    }

    #[test]
    fn only_the_secret_behind_join_is_left_out_of_the_arguments() {
        let mut command = Command::new("p");
        command.args(["register", "--join", "pulse://a/?join=b", "pulse://c"]);
        assert_eq!(line(&command), "$ p register --join JOIN_STRING pulse://c\n");
    }

    #[test]
    fn output_is_left_out_only_where_a_secret_is_asked_for() {
        let said = |arguments: &[&str], code| {
            let mut command = Command::new("p");
            command.args(arguments);
            let ran = Ran { code: Some(code), stdout: "said\n".to_owned(), stderr: "told\n".to_owned() };
            keep(&command, &ran);
            let (target, test_file) = places();
            let test = std::thread::current().name().expect("a test has a name").replace("::", ".");
            let path = target.join("test-output").join(test_file).join(format!("{test}.commands.txt"));
            let all = fs::read_to_string(path).expect("it was written");
            all.rsplit("$ p").next().expect("there is one").to_owned()
        };
        let open = said(&["join", "list"], 0);
        assert!(open.contains("said") && open.contains("told"), "{open}");
        let made = said(&["join", "create", "--json"], 0);
        assert!(!made.contains("said") && made.contains("told"), "{made}");
        assert!(said(&["join", "create"], 1).contains("said"), "a refusal is no secret's place");
    }
}
