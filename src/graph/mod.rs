//! Microsoft Graph: requests and answers as values, and the client that exchanges them.
//!
//! [`api`], [`cloud`], [`folder`], [`pace`] and [`token`] touch nothing; only [`client`] knows HTTP.
//! A mail request always asks for immutable ids, so that the id of a copy survives its moves.

pub mod api;
pub mod client;
pub mod cloud;
pub mod folder;
pub mod pace;
pub mod token;
