use super::*;

#[derive(Debug, PartialEq)]
struct Sample {
    name: Option<String>,
    count: Option<u64>,
    wait: Option<Duration>,
    size: Option<u64>,
    on: Option<bool>,
    file: Option<PathBuf>,
    nodes: Vec<String>,
    listen: Option<Vec<String>>,
    inner: (Option<u64>, Option<String>),
}

fn read_sample(text: &str, variables: &[(&str, &str)]) -> Result<Reading<Sample>, Mistakes> {
    let document = Document::parse(text, "f.yaml")?;
    let environment = variables.iter().map(|(name, value)| (*name, *value)).collect();
    read(&document, &environment, "PULSE_", |keys| Sample {
        name: keys.string("name"),
        count: keys.integer("count", 1..=10),
        wait: keys.duration("wait", Duration::from_secs(5)..=Duration::from_secs(600)),
        size: keys.bytes("size", 1024..=1 << 30),
        on: keys.boolean("on"),
        file: keys.path("file"),
        nodes: keys.union("nodes", |text| if text == "bad" { Err("is bad".into()) } else { Ok(text.into()) }),
        listen: keys.list("listen", |text| Ok(text.into())),
        inner: keys.section("inner", |keys| {
            keys.retired("old_key", &["PULSE_OLD"], "has no meaning any more");
            (keys.integer("depth", 0..=9), keys.string("word"))
        }),
    })
}

fn mistakes(text: &str) -> Vec<String> {
    let mistakes = read_sample(text, &[]).expect_err("the text has mistakes");
    mistakes.remarks().iter().map(ToString::to_string).collect()
}

#[test]
fn values_are_read_with_their_types() {
    let text = "name: no\ncount: 3\nwait: 1m\nsize: 2KiB\non: yes\nfile: /a b\nnodes: [x, 0123]\nlisten: one\ninner: {depth: 2}\n";
    let reading = read_sample(text, &[]).unwrap();
    let expected = Sample {
        name: Some("no".into()),
        count: Some(3),
        wait: Some(Duration::from_secs(60)),
        size: Some(2048),
        on: Some(true),
        file: Some("/a b".into()),
        nodes: vec!["x".into(), "0123".into()],
        listen: Some(vec!["one".into()]),
        inner: (Some(2), None),
    };
    assert_eq!(reading.value, expected);
    assert!(reading.warnings.is_empty());
    let keys =
        ["name", "count", "wait", "size", "on", "file", "nodes", "listen", "inner.depth", "inner.word"];
    assert_eq!(reading.known_keys, keys);
}

#[test]
fn all_mistakes_come_at_once_each_with_its_line() {
    let text = "nmae: x\ncount: 11\nwait: 2s\nsize: 1\non: maybe\nfile: relative\nnodes: [a, [b], bad]\ninner:\n  depht: 1\n";
    assert_eq!(
        mistakes(text),
        [
            "f.yaml:2: count: must be a whole number from 1 to 10, but is \"11\"",
            "f.yaml:3: wait: must be from 5s to 10m, but is 2s",
            "f.yaml:4: size: must be from 1KiB to 1GiB, but is 1B",
            "f.yaml:5: on: must be true or false, but is \"maybe\"",
            "f.yaml:6: file: must be an absolute path (beginning with /)",
            "f.yaml:7: nodes: each entry must be a single value, but is a list",
            "f.yaml:7: nodes: is bad",
            "f.yaml:9: inner.depht: unknown key; did you mean depth?",
            "f.yaml:1: nmae: unknown key; did you mean name?",
        ]
    );
}

#[test]
fn unknown_key_without_a_near_one_lists_the_known() {
    assert_eq!(mistakes("inner: {zzz: 1}\n"), ["f.yaml:1: inner.zzz: unknown key; known here: depth, word"]);
    assert_eq!(mistakes("NAME: x\n"), ["f.yaml:1: NAME: unknown key; did you mean name?"]);
}

#[test]
fn numbers_that_are_none_are_refused() {
    for text in ["-1", "+1", "1.0", "1e1", "0x1", "\"\"", "99999999999999999999999", "1_0", "one", "0"] {
        let found = mistakes(&format!("count: {text}\n"));
        assert!(
            found[0].starts_with("f.yaml:1: count: must be a whole number from 1 to 10"),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn wrong_kinds_are_named() {
    assert_eq!(mistakes("name: [a]\n"), ["f.yaml:1: name: must be a single value, but is a list"]);
    assert_eq!(mistakes("nodes: {a: b}\n"), ["f.yaml:1: nodes: must be a list, but is a block of keys"]);
    assert_eq!(mistakes("inner: 3\n"), ["f.yaml:1: inner: must be a block of keys, but is a single value"]);
    assert_eq!(mistakes("- a\n"), ["f.yaml:1: must be a block of keys, but is a list"]);
    assert_eq!(mistakes("just words\n"), ["f.yaml:1: must be a block of keys, but is a single value"]);
}

#[test]
fn doubled_key_names_both_lines() {
    let expected = ["f.yaml:3: count: stands here a second time, first in line 1; keep one of the two"];
    assert_eq!(mistakes("count: 1\nname: x\ncount: 2\n"), expected);
    let expected = ["f.yaml:3: inner: stands here a second time, first in line 1; keep one of the two"];
    assert_eq!(mistakes("inner:\n  depth: 1\ninner:\n  depth: 2\n"), expected);
}

#[test]
fn union_joins_doubled_blocks_and_the_environment() {
    let text = "nodes: [a]\nnodes:\n  - b\n  -\nnodes:\n";
    let reading = read_sample(text, &[("PULSE_NODES", "c, d,,")]).unwrap();
    assert_eq!(reading.value.nodes, ["a", "b", "c", "d"]);
}

#[test]
fn key_without_a_value_is_as_if_it_were_not_there() {
    let text = "name:\ncount: ~\nwait: null\nsize:\non:\nfile:\nnodes:\nlisten:\ninner:\n";
    assert_eq!(read_sample(text, &[]).unwrap().value, read_sample("", &[]).unwrap().value);
    assert_eq!(read_sample("name: ''\nfile: ' '\n", &[]).unwrap().value, read_sample("", &[]).unwrap().value);
}

#[test]
fn environment_goes_before_the_file_and_unknown_variables_are_ignored() {
    let variables = [
        ("PULSE_COUNT", "5"),
        ("PULSE_INNER_DEPTH", " 7 "),
        ("PULSE_LISTEN", "a,b"),
        ("PULSE_PORT", "tcp://10.0.0.1"),
        ("PULSE_NAME", ""),
    ];
    let value = read_sample("count: 3\nname: file\nlisten: [c]\n", &variables).unwrap().value;
    assert_eq!((value.count, value.inner.0, value.name.as_deref()), (Some(5), Some(7), Some("file")));
    assert_eq!(value.listen, Some(vec!["a".into(), "b".into()]));
}

#[test]
fn mistakes_of_file_and_environment_are_both_told() {
    let found = read_sample("count: 0\n", &[("PULSE_COUNT", "x")]).unwrap_err();
    let found: Vec<_> = found.remarks().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "f.yaml:1: count: must be a whole number from 1 to 10, but is \"0\"",
            "environment variable PULSE_COUNT: count: must be a whole number from 1 to 10, but is \"x\"",
        ]
    );
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_utf8_is_a_mistake() {
    use std::os::unix::ffi::OsStringExt;
    let environment = Environment::from_iter([("PULSE_NAME", std::ffi::OsString::from_vec(vec![0xff]))]);
    let found =
        read(&Document::empty("f.yaml"), &environment, "PULSE_", |keys| keys.string("name")).unwrap_err();
    assert_eq!(found.to_string(), "environment variable PULSE_NAME: name: is not UTF-8 text");
}

#[test]
fn retired_key_or_variable_gives_one_warning_whatever_it_holds() {
    for (text, variables, place) in [
        ("inner:\n  old_key: [1, {a: b}]\n", vec![], "f.yaml:2"),
        ("", vec![("PULSE_OLD", "x")], "environment variable PULSE_OLD"),
        ("inner:\n  old_key:\n  old_key: 2\n", vec![("PULSE_OLD", "x")], "f.yaml:2"),
    ] {
        let warnings = read_sample(text, &variables).unwrap().warnings;
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].to_string(), format!("{place}: inner.old_key: has no meaning any more"));
    }
}

#[test]
fn nearest_word_is_near() {
    let known = ["allowed_nodes", "allowed_nodes_file", "log_level"];
    assert_eq!(nearest("allowed-nodes", known), Some("allowed_nodes"));
    assert_eq!(nearest("alowed_node", known), Some("allowed_nodes"));
    assert_eq!(nearest("loglevel", known), Some("log_level"));
    assert_eq!(nearest("password", known), None);
}
