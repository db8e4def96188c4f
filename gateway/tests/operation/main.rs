//! The gateway's program as administrators use it: real processes, real sockets.

mod commands;
mod doctor;
mod gateway;
mod life;
mod members;
mod policies;
