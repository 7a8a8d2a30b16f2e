//! Black-box tests: endpoints, and members played by hand, on loopback.

mod exactness;
mod loss;
mod support;
