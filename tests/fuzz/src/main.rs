//! One fuzz target under libFuzzer: the one that `PULSE_FUZZ_TARGET` names. `scripts/fuzz.sh` builds and runs it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pulse_fuzz::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("PULSE_FUZZ_TARGET").expect("PULSE_FUZZ_TARGET names a target");
    Target::by_name(&name).expect("there is a target of that name")
});

fuzz_target!(|data: &[u8]| (TARGET.check)(data));
