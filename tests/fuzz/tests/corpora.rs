//! Every target on all that is in its corpus: the seeds, and what fuzzing ever found.

use std::collections::BTreeSet;
use std::fs;

use pulse_fuzz::{TARGETS, Target, seeds};

/// Feeds a target with its corpus.
fn replay(name: &str) {
    let target = Target::by_name(name).expect("there is a target of that name");
    let mut inputs: Vec<_> = fs::read_dir(target.corpus())
        .expect("each target has a corpus")
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    for path in inputs {
        let input = fs::read(&path).expect("the corpus can be read");
        // What panics is named: the input stands in the output of the test.
        println!("{}", path.display());
        (target.check)(&input);
    }
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = BTreeSet::from([$(stringify!($name)),*]);
            assert_eq!(replayed, TARGETS.iter().map(|target| target.name).collect());
        }
    };
}

replayed! {
    admin_api cache_file identity_file join_string nodes older_files older_rest proxy_config pve_answers readings_buffer register report_sync
    report_temperatures rotate_token server_config static_list sysfs unregister watch_message watch_request
}

/// With `PULSE_FUZZ_WRITE_SEEDS` set it writes them instead: after a change of the contract.
#[test]
fn the_corpora_hold_the_seeds() {
    for target in TARGETS {
        let seeds = seeds::of(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (name, input) in seeds {
            let path = target.corpus().join(name);
            if std::env::var_os("PULSE_FUZZ_WRITE_SEEDS").is_some() {
                fs::create_dir_all(target.corpus()).unwrap();
                fs::write(&path, &input).unwrap();
            }
            let held = fs::read(&path).unwrap_or_default();
            assert_eq!(held, input, "{}: write it with PULSE_FUZZ_WRITE_SEEDS=1", path.display());
        }
    }
}
