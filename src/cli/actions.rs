//! Arguments of the verbs that call actions.

use clap::Args;

/// Arguments of an action on a VM that is named.
#[derive(Debug, Args)]
pub struct VmActionArgs {
    /// Name of the VM
    pub name: String,
    /// Name of the plugin
    pub plugin: String,
    /// Name of the action
    pub action: String,
    /// What is sent
    #[command(flatten)]
    pub payload: PayloadArgs,
}

/// Arguments of an action on any ready VM of a plugin.
#[derive(Debug, Args)]
pub struct PluginActionArgs {
    /// Name of the plugin
    pub plugin: String,
    /// Name of the action
    pub action: String,
    /// What is sent
    #[command(flatten)]
    pub payload: PayloadArgs,
}

/// What is sent with an action.
#[derive(Debug, Args)]
pub struct PayloadArgs {
    /// The body: JSON, @FILE, the path of a file, or - for stdin
    #[arg(short, long, value_name = "JSON|@FILE|FILE|-")]
    pub payload: Option<String>,
    /// Media type of the body; application/json if it is JSON, else application/octet-stream
    #[arg(long)]
    pub content_type: Option<String>,
}
