//! docs/api.md, taken apart: its headings, its examples as what they ask and how that is answered, and the text between them.

use std::ops::Range;

use serde_json::Value;

/// Where the page says that the server is.
const ROOT: &str = "https://pulse.lan:7655/api/v1";
/// The same, on the admin socket.
const SOCKET_ROOT: &str = "http://localhost/api/v1";

/// A piece of the page.
#[derive(Debug)]
pub(crate) enum Piece {
    /// `### …`
    Heading(String),
    /// An example.
    Example { asked: Asked, status: u16, body: Option<Value>, lines: Range<usize> },
    /// A host registers.
    Joins(String),
    /// A line of text.
    Text(String),
}

/// What a `curl` asks.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub method: String,
    /// Below the root, with its query.
    pub path: String,
    pub body: Option<String>,
    pub is_socket: bool,
    /// With the API token.
    pub has_token: bool,
    /// Headers, with their values.
    pub headers: Vec<(String, String)>,
    /// With the cookies of a file.
    pub has_cookies: bool,
    /// Cookies that are set go into a file.
    pub keeps_cookies: bool,
}

/// The words of a command, as a shell parts them: quotes keep together, a backslash goes on in the next line.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.replace("\\\n", " ").chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn asked(command: &str) -> Asked {
    // What it is given on its standard input.
    let (line, typed) = command.split_once(" <<'END'\n").unwrap_or((command, ""));
    let words = words(line);
    let (mut method, mut path, mut asked) = (None, None, Asked::default());
    let mut rest = words.iter().map(String::as_str).skip_while(|word| *word != "curl").skip(1);
    while let Some(word) = rest.next() {
        // The value of an option.
        let mut value =
            || rest.next().unwrap_or_else(|| panic!("{command}: {word} takes a value")).to_owned();
        match word {
            "-N" => {}
            "--output" | "--cacert" => drop(value()),
            "-K" => {
                value();
                asked.has_token = true;
            }
            "--unix-socket" => {
                value();
                asked.is_socket = true;
            }
            "-b" => {
                value();
                asked.has_cookies = true;
            }
            "-c" => {
                value();
                asked.keeps_cookies = true;
            }
            "-H" => {
                let header = value();
                let (name, value) = header.split_once(": ").expect("a header has a value");
                asked.headers.push((name.to_owned(), value.to_owned()));
            }
            "-X" => method = Some(value()),
            "--json" => {
                let given = value();
                let typed = typed.strip_suffix("\nEND").unwrap_or(typed);
                asked.body = Some(if given == "@-" { typed.to_owned() } else { given });
            }
            url => {
                let below = url.strip_prefix(ROOT).or_else(|| url.strip_prefix(SOCKET_ROOT));
                path =
                    Some(below.unwrap_or_else(|| panic!("{command}: {word} is not understood")).to_owned());
            }
        }
    }
    asked.method = method.unwrap_or_else(|| if asked.body.is_some() { "POST" } else { "GET" }.to_owned());
    asked.path = path.expect("a command has a URL");
    asked
}

/// What a text says as JSON: of one value that, of several, such as one a line, a list of them. Of events it is their data. `null`: it
/// is none.
pub(crate) fn json(text: &str) -> Value {
    let data: String = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let text = if data.is_empty() { text } else { &data };
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    let mut values = values.unwrap_or_default();
    if values.len() > 1 { Value::Array(values) } else { values.pop().unwrap_or_default() }
}

pub(crate) fn pieces(page: &str) -> Vec<Piece> {
    let lines: Vec<&str> = page.lines().collect();
    let (mut pieces, mut command, mut at) = (Vec::new(), None::<String>, 0);
    while let Some(line) = lines.get(at) {
        at += 1;
        if let Some(kind) = line.strip_prefix("```").filter(|kind| !kind.is_empty()) {
            let end = (at..lines.len()).find(|at| lines[*at] == "```").expect("a block has an end");
            let text = lines[at..end].join("\n");
            match kind {
                "sh" if text.contains("curl ") => command = Some(text),
                "http" => {
                    let command = command.take().expect("an answer stands behind its request");
                    let (status, body) = text.split_once('\n').unwrap_or((&text, ""));
                    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
                    let body = body.trim();
                    let shown = (!body.is_empty()).then(|| json(body));
                    assert!(shown != Some(Value::Null), "{command}: this is no JSON: {body}");
                    pieces.push(Piece::Example {
                        asked: asked(&command),
                        status: status.unwrap_or_else(|| panic!("{command}: a status")),
                        body: shown,
                        lines: at..end,
                    });
                }
                _ => {}
            }
            at = end + 1;
        } else if let Some(heading) = line.strip_prefix("### ") {
            pieces.push(Piece::Heading(heading.trim_matches('`').to_owned()));
        } else if let Some(name) =
            line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" joins -->"))
        {
            pieces.push(Piece::Joins(name.to_owned()));
        } else {
            pieces.push(Piece::Text((*line).to_owned()));
        }
    }
    pieces
}
