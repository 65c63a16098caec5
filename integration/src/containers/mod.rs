//! Images and the services of a compose file as plain processes, for machines without a container engine: a Dockerfile's steps and a service's command
//! run in a mount namespace of their own, over this machine's Debian, which stands in for the base images.
//!
//! What is so shown: that the files which are copied suffice, that the steps run, that the programs find their libraries, and that commands, users,
//! rights, volumes, variables, health checks and configuration files fit together. What is not: pulling, layers and networks of a real engine.

mod compose;
mod dockerfile;
mod image;
mod process;

pub use compose::{Compose, Service};
pub use dockerfile::{Stage, Step, parse};
pub use image::{Image, Workshop};
pub use process::{Bind, Wish};
