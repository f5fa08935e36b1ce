//! A subscription's place as a pure state machine.
