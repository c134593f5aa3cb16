//! The engine over a store in memory, with scripted tools and a clock that is moved by hand.

mod world;

mod cancel;
mod runs;
mod servers;
mod workers;
