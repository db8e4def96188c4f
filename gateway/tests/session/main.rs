//! The road through a gateway, over mTLS on the loopback.

mod refusals;
mod road;
mod support;
