//! Arguments of the verbs on what a VM can be asked.

use clap::Args;

use crate::cli::{PayloadArgs, key_value};

/// Arguments of call.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// Name of the VM
    pub name: String,
    /// An operation's id, or METHOD:/path
    pub operation: String,
    /// A parameter of the path, KEY=VALUE
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = key_value)]
    pub params: Vec<(String, String)>,
    /// A parameter of the query, KEY=VALUE
    #[arg(long = "query", value_name = "KEY=VALUE", value_parser = key_value)]
    pub query: Vec<(String, String)>,
    /// What is sent
    #[command(flatten)]
    pub payload: PayloadArgs,
}
