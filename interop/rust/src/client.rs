#[derive(clap::Args)]
pub(crate) struct Args {}
pub(crate) async fn run(_args: Args) -> anyhow::Result<std::process::ExitCode> { anyhow::bail!("being written") }
