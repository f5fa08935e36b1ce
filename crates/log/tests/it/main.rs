//! The log from outside, through the broker's seam.

mod road;
mod support;
