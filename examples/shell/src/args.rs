//! The options that all programs have.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anstyle::AnsiColor;
use clap::builder::Styles;
use clap::{Args, Subcommand};
use gorums::membership::NodeAddress;
use gorums::runtime::Address;

/// How help looks.
pub const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(anstyle::Style::new().bold());

/// What can be run besides a client.
#[derive(Debug, Subcommand)]
pub enum Mode {
    /// Run one replica, until Ctrl-C or SIGTERM.
    Serve(Serve),
    /// Start replicas as processes of their own, and a client of them.
    ///
    /// The commands are those of local replicas: "stop" kills the process of a replica, "pause"
    /// sends it SIGSTOP. The processes end with this one.
    Cluster(Cluster),
    /// Set up a new replica, once, before it is served for the first time.
    ///
    /// A replica that is served with --data and --peers, and was not set up there, takes itself for
    /// one that has lost its data: it gets them again from the others, and answers nothing before.
    /// "cluster", and replicas in this process, are set up by themselves where their directory has
    /// none yet.
    #[command(after_help = INIT_HELP)]
    Init(Init),
    /// Call a method of one replica that runs, and print its reply as JSON.
    #[command(after_help = CALL_HELP)]
    Call(Call),
    /// Look at all of the files of one replica that does not run, and say whether they are whole.
    ///
    /// Nothing is changed. The exit status is 1 where something is damaged, gone, older than it was,
    /// or another replica's.
    Verify(Verify),
}

const CALL_HELP: &str = "\
A method that streams prints each reply on a line of its own; one that is one-way says that the \
request was sent. '{}' is a request in which nothing is set, and a wrong METHOD lists all methods. \
Replies go to standard output, and an error, with the name of its status, to standard error; the exit \
status is 1 then. Only the replica that is called is waited for (--wait).";

const INIT_HELP: &str = "\
Data that are there already, as of a replica that was served without --peers, are taken for all \
that it ever acknowledged. Never set a replica up again that has lost its data.";

/// Which replica to set up, and where.
#[derive(Debug, Args)]
pub struct Init {
    /// The id of the replica, as for serve.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub id: u32,
    /// The directory of its data, which is made where there is none.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Let a replica answer that has lost its data, with what it has. For when so many have lost
    /// theirs that none can get them again: what was acknowledged by those alone is lost then.
    #[arg(long)]
    pub accept_loss: bool,
}

/// What to call, and where.
#[derive(Debug, Args)]
pub struct Call {
    /// Where the replicas are.
    #[command(flatten)]
    pub target: Target,
    /// How long the call may take, as in 500ms or 2s.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = timeout)]
    pub timeout: Duration,
    /// The id of the replica.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub node: u32,
    /// The method: Read, Storage/Read or proto.Storage/Read.
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// The request, as in '{"key": "greeting"}'.
    #[arg(value_name = "JSON")]
    pub json: String,
}

/// Whose files to look at.
#[derive(Debug, Args)]
pub struct Verify {
    /// The id of the replica.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub id: u32,
    /// The directory of its files.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// Which replicas to start as processes.
#[derive(Debug, Args)]
pub struct Cluster {
    /// The commands, and how they are carried out.
    #[command(flatten)]
    pub calls: Calls,
    /// The number of replicas to start.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub replicas: u32,
    /// Keep what is written in files of this directory, as for serve.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The address of the first replica; the others get the ports after it. Without a port, or with
    /// port 0, the system chooses one for each.
    #[arg(long, value_name = "IP[:PORT]", default_value = "127.0.0.1", value_parser = listen)]
    pub listen: SocketAddr,
}

/// How to run a replica.
#[derive(Debug, Args)]
pub struct Serve {
    /// The id by which this replica names itself; clients give it one of their own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub id: u32,
    /// The address to listen on, HOST:PORT or unix:PATH. With port 0 the system chooses one, which
    /// is printed.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Address,
    /// All replicas, this one among them: as for --connect. Nested calls go to them, and with --data
    /// a replica that has lost its data gets them again from them. Give it to all or to none.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub peers: Vec<NodeAddress>,
    /// Keep what is written in this directory, which is made where there is none: a write is on
    /// disk before it is answered, and a replica that is started again has it. Without it, all is
    /// kept in memory only. With --peers, "init" sets it up first.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// How its connections are secured.
    #[command(flatten)]
    pub tls: TlsFiles,
    /// Share the port with whoever has started this, take orders from standard input, and end with
    /// it.
    #[arg(long, hide = true, conflicts_with = "ca")]
    pub controlled: bool,
}

/// How to run a client, and which replicas.
#[derive(Debug, Args)]
pub struct Client {
    /// The commands, and how they are carried out.
    #[command(flatten)]
    pub calls: Calls,
    /// Replicas elsewhere.
    #[command(flatten)]
    pub target: Target,
    /// The number of replicas to start in this process.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 4,
        conflicts_with_all = ["connect", "config"],
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub replicas: u32,
    /// Let these replicas keep what is written in files of this directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["connect", "config"])]
    pub data: Option<PathBuf>,
}

/// What a client is to do.
#[derive(Debug, Args)]
pub struct Calls {
    /// Carry out a command and leave; may be repeated.
    #[arg(short, long = "command", value_name = "COMMAND")]
    pub commands: Vec<String>,
    /// How long a call may take, as in 500ms or 2s.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = timeout)]
    pub timeout: Duration,
}

/// Replicas that run already.
#[derive(Debug, Args)]
pub struct Target {
    /// Connect to replicas elsewhere: HOST:PORT,… (ids count from 1) or 1=HOST:PORT,2=HOST:PORT,…
    #[arg(
        long,
        value_name = "ADDRESSES",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub connect: Vec<NodeAddress>,
    /// Connect to the replicas that a TOML file lists.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long to wait at first until a majority of them is connected; 0s goes on at once.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub wait: Duration,
    /// How the connections to them are secured.
    #[command(flatten)]
    pub tls: TlsFiles,
}

/// Connections that are encrypted, and whose both ends prove who they are.
#[derive(Debug, Default, Args)]
pub struct TlsFiles {
    /// Speak TLS, with those alone whose certificates the authorities in this file have made (PEM).
    /// What changes in the files is taken over within some 10 s.
    /// `cargo xtask certs DIR` makes all of these files, to try it out.
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"], help_heading = "TLS")]
    pub ca: Option<PathBuf>,
    /// The certificate of this process, with those between it and the authority (PEM).
    #[arg(long, value_name = "FILE", requires = "ca", help_heading = "TLS")]
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "ca", help_heading = "TLS")]
    pub key: Option<PathBuf>,
    /// Refuse the certificates that this file lists (PEM): `cargo xtask certs DIR --revoke ID` makes it.
    #[arg(long, value_name = "FILE", requires = "ca", help_heading = "TLS")]
    pub revoked: Option<PathBuf>,
    /// Have each replica prove its id, by a certificate that has the URI gorums://NAME/node/ID.
    #[arg(long, value_name = "NAME", requires = "ca", help_heading = "TLS")]
    pub cluster: Option<String>,
}

impl Target {
    /// Whether there are any.
    #[must_use]
    pub fn is_given(&self) -> bool {
        !self.connect.is_empty() || self.config.is_some()
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let without_port = || text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0));
    let parsed = text.parse().or_else(|_| without_port());
    parsed.map_err(|_| {
        "expected an IP address, with or without a port, as in 127.0.0.1:8081".to_owned()
    })
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("nothing can be done in no time".to_owned()),
        Ok(timeout) => Ok(timeout),
        Err(error) => Err(error.to_string()),
    }
}
