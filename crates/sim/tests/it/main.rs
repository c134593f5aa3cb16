//! Tests of the world around the engine, and of the repository's own rules.

mod explorer;
mod seeds;
mod tidy;
