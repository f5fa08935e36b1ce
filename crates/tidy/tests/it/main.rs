//! The rules this repository keeps about its own text, as tests that read the tracked files.
//!
//! A rule that only people watch is broken within a month. Each module here is one rule: a pure
//! `check` from text to findings, a test that runs it over the repository, and a test that runs it
//! over a bad sample, so that it is known to be able to fail. A finding names the place and says
//! what to do. Where a rule has exceptions they stand in an `ALLOWED` list with the reason beside
//! each, and an exception nobody needs any more is itself a finding: the lists can only shrink or
//! be argued for.
#![allow(clippy::expect_used, clippy::panic, reason = "this is all tests; a panic is a failure")]

mod budgets;
mod dead_files;
mod docs;
mod floors;
mod leftovers;
mod ratchet;
mod repo;
mod seams;
mod tally;
mod words;
