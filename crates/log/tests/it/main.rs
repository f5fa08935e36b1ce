//! The log from outside, through the broker's seam.

mod concurrency;
mod damage;
mod full;
mod lagging;
mod opening;
mod retention;
mod road;
mod support;
