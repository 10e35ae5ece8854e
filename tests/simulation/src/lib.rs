//! The simulation is a test: see `tests/simulation/main.rs`. Nothing is built from here.
