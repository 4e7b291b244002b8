//! A server's life, over loopback sockets.

mod admin;
mod connections;
mod drain;
mod health;
mod hostile;
mod service;
mod signals;
mod tls;
mod turnstile;
