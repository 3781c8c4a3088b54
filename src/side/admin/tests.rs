//! What needs a paused clock or an eye inside; the rest is tested over the socket.
#![allow(clippy::unwrap_used)]
