//! `cargo xtask certs`: an authority and certificates to try TLS out.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes an authority for tests, and certificates of it for nodes and a client.
///
/// The certificate of node 3 has the URI gorums://CLUSTER/node/3, the name localhost, the addresses
/// 127.0.0.1 and ::1, and the names that --host gives; servers and clients may use it, as a node is
/// both. The authority's key lies beside them, unprotected: for tests, and for nothing else.
///
/// With --renew or --revoke nothing but what they name is written, each file in one step, so that
/// programs that look at the files take them over.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask certs certs
  cargo xtask certs certs --cluster prod --nodes 5 --host node.example --host 10.0.0.7
  cargo xtask certs certs --renew
  cargo xtask certs certs --revoke 2 --revoke client")]
pub(crate) struct Args {
    /// The folder to write them to; it is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// The cluster that the URIs name
    #[arg(long, default_value = "test")]
    cluster: String,

    /// How many nodes get a certificate, with the ids from 1 on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    nodes: u32,

    /// Another host name or IP address that each node's certificate has; may be given again
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,

    /// How long they are valid
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,

    /// Overwrite files that are there: what the old authority has made is worth nothing then
    #[arg(long)]
    force: bool,

    /// Make new certificates and keys for the nodes and the client, by the authority that is there; give
    /// --cluster, --nodes and --host as before
    #[arg(long, conflicts_with = "force")]
    renew: bool,

    /// Revoke the certificate of this node, or of the client: add it to revoked.pem; may be given again
    #[arg(long, value_name = "ID|client", conflicts_with_all = ["force", "renew", "nodes", "hosts", "cluster"])]
    revoke: Vec<String>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match make(args) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes some in this folder, in place of those that are there: for three nodes and a client, of the
/// cluster `test`.
pub(crate) fn renew(folder: PathBuf) -> Result<()> {
    let args = Args {
        folder,
        cluster: "test".to_owned(),
        nodes: 3,
        hosts: Vec::new(),
        days: 30,
        force: true,
        renew: false,
        revoke: Vec::new(),
    };
    make(&args).map(drop)
}

/// A certificate with its key, as PEM.
struct Made {
    name: String,
    certificate: String,
    key: String,
}

fn make(args: &Args) -> Result<String> {
    check_cluster(&args.cluster)?;
    if !args.revoke.is_empty() {
        return revoke(args);
    }
    let (made, list) = if args.renew {
        (issue_all(args, &authority(&args.folder)?)?, None)
    } else {
        let (ca, authority) = new_authority(args)?;
        let list = list(args, &authority, Vec::new())?;
        let mut made = vec![ca];
        made.extend(issue_all(args, &authority)?);
        (made, Some(list))
    };
    let mut files: Vec<_> = made
        .iter()
        .flat_map(|made| {
            let file = |end: &str| args.folder.join(format!("{}.{end}", made.name));
            [
                (file("pem"), &made.certificate, false),
                (file("key"), &made.key, true),
            ]
        })
        .collect();
    files.extend(
        list.iter()
            .map(|list| (args.folder.join(REVOKED), list, false)),
    );
    if !args.force && !args.renew {
        let there: Vec<_> = files
            .iter()
            .filter(|(path, ..)| path.symlink_metadata().is_ok())
            .map(|(path, ..)| path.display().to_string())
            .collect();
        if let Some(first) = there.first() {
            bail!(
                "{first} is there already, of {} that would be overwritten: give another folder, or --force",
                there.len()
            );
        }
    }
    fs::create_dir_all(&args.folder)
        .with_context(|| format!("making {}", args.folder.display()))?;
    for (path, text, is_secret) in files {
        write(&path, text, is_secret).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(if args.renew {
        format!(
            "renewed in {}, valid for {} days: nodes 1 to {}, and the client\n",
            args.folder.display(),
            args.days,
            args.nodes
        )
    } else {
        report(args)
    })
}

/// The list of those that are revoked.
const REVOKED: &str = "revoked.pem";

/// Adds certificates to the list.
fn revoke(args: &Args) -> Result<String> {
    let authority = authority(&args.folder)?;
    let path = args.folder.join(REVOKED);
    let mut revoked = match path.symlink_metadata() {
        Ok(_) => listed(&path)?,
        Err(_) => Vec::new(),
    };
    for whose in &args.revoke {
        let name = match whose.parse::<u32>() {
            Ok(id) => format!("node-{id}.pem"),
            Err(_) if whose == "client" => "client.pem".to_owned(),
            Err(_) => bail!("{whose:?} has no certificate: give the id of a node, or client"),
        };
        let serial = serial(&args.folder.join(&name))?;
        if revoked.iter().any(|one| one.serial_number == serial) {
            bail!("the certificate in {name} is revoked already: --renew makes another one");
        }
        revoked.push(RevokedCertParams {
            serial_number: serial,
            revocation_time: SystemTime::now().into(),
            reason_code: None,
            invalidity_date: None,
        });
    }
    let count = revoked.len();
    write(&path, &list(args, &authority, revoked)?, false)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(format!(
        "{} revokes {count} certificates now; there should be another list in {} days\n",
        path.display(),
        args.days
    ))
}

/// The authority that has made what is in the folder.
fn authority(folder: &Path) -> Result<Issuer<'static, KeyPair>> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| {
            format!(
                "reading {}: the folder is to be one that `cargo xtask certs` has made",
                path.display()
            )
        })
    };
    let key = KeyPair::from_pem(&read("ca.key")?).context("ca.key has no key")?;
    Issuer::from_ca_cert_pem(&read("ca.pem")?, key).context("ca.pem is that of no authority")
}

/// The serial number of a certificate.
fn serial(path: &Path) -> Result<SerialNumber> {
    let name = path.display();
    let text = fs::read(path).with_context(|| format!("reading {name}"))?;
    let (_, pem) = parse_x509_pem(&text).map_err(|error| anyhow!("{name} is not PEM: {error}"))?;
    let certificate = pem.parse_x509();
    let certificate = certificate.map_err(|error| anyhow!("{name} has no certificate: {error}"))?;
    Ok(SerialNumber::from(certificate.raw_serial().to_vec()))
}

/// Those that a list has.
fn listed(path: &Path) -> Result<Vec<RevokedCertParams>> {
    let name = path.display();
    let text = fs::read(path).with_context(|| format!("reading {name}"))?;
    let (_, pem) = parse_x509_pem(&text).map_err(|error| anyhow!("{name} is not PEM: {error}"))?;
    let list = CertificateRevocationList::from_der(&pem.contents);
    let (_, list) = list.map_err(|error| anyhow!("{name} has no list: {error}"))?;
    let all = list.iter_revoked_certificates();
    let all = all.map(|one| RevokedCertParams {
        serial_number: SerialNumber::from(one.raw_serial().to_vec()),
        revocation_time: one.revocation_date.to_datetime(),
        reason_code: None,
        invalidity_date: None,
    });
    Ok(all.collect())
}

/// The list with these, as PEM.
fn list(
    args: &Args,
    authority: &Issuer<'_, KeyPair>,
    revoked: Vec<RevokedCertParams>,
) -> Result<String> {
    let now = SystemTime::now();
    let made = now.duration_since(SystemTime::UNIX_EPOCH)?;
    let list = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + DAY * args.days).into(),
        crl_number: SerialNumber::from(made.as_secs()),
        issuing_distribution_point: None,
        revoked_certs: revoked,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(list.signed_by(authority)?.pem()?)
}

/// A file with this text, in the place of one that is there, in one step. A key is for its owner alone.
fn write(path: &Path, text: &str, is_secret: bool) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    if new.symlink_metadata().is_ok() {
        // Left by one that was killed.
        fs::remove_file(new)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if is_secret {
        use std::os::unix::fs::OpenOptionsExt;

        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = is_secret;
    options.open(new)?.write_all(text.as_bytes())?;
    fs::rename(new, path)?;
    Ok(())
}

/// What can stand in a URI without being escaped, and be nothing else there.
fn check_cluster(name: &str) -> Result<()> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || !name.chars().all(is_legal) {
        bail!("{name:?} cannot name a cluster: it has letters, digits, and -._ only");
    }
    Ok(())
}

fn new_authority(args: &Args) -> Result<(Made, Issuer<'static, KeyPair>)> {
    // No two have the same name: whose list of revoked certificates it is is known by that alone.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let name = format!(
        "Gorums test authority of {}, {:x}",
        args.cluster,
        now.as_micros()
    );
    let mut params = params(args, &name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let made = Made {
        name: "ca".to_owned(),
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    };
    Ok((made, Issuer::new(params, key)))
}

/// The certificates of the nodes and of the client.
fn issue_all(args: &Args, authority: &Issuer<'_, KeyPair>) -> Result<Vec<Made>> {
    let mut made = Vec::new();
    for id in 1..=args.nodes {
        let name = format!("node-{id}");
        let uri = format!("gorums://{}/node/{id}", args.cluster);
        let purposes = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        made.push(issue(
            args,
            authority,
            name,
            uri,
            hosts(&args.hosts)?,
            purposes,
        )?);
    }
    let uri = format!("gorums://{}/client", args.cluster);
    let purposes = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let name = "client".to_owned();
    made.push(issue(args, authority, name, uri, Vec::new(), purposes)?);
    Ok(made)
}

fn issue(
    args: &Args,
    authority: &Issuer<'_, KeyPair>,
    name: String,
    uri: String,
    hosts: Vec<SanType>,
    purposes: Vec<ExtendedKeyUsagePurpose>,
) -> Result<Made> {
    let mut params = params(args, &name);
    params.subject_alt_names = hosts;
    params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = purposes;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok(Made {
        certificate: params.signed_by(&key, authority)?.pem(),
        key: key.serialize_pem(),
        name,
    })
}

fn params(args: &Args, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    // Clocks differ.
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * args.days).into();
    params
}

/// Loopback, and what was asked for besides.
fn hosts(more: &[String]) -> Result<Vec<SanType>> {
    let mut hosts = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::from(Ipv6Addr::LOCALHOST)),
    ];
    for host in more {
        hosts.push(match host.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => {
                let of_names = |c: char| c.is_ascii_alphanumeric() || "-._*".contains(c);
                if host.is_empty() || !host.chars().all(of_names) {
                    bail!(
                        "{host:?} is neither a host name nor an IP address: give it without a port"
                    );
                }
                SanType::DnsName(host.as_str().try_into()?)
            }
        });
    }
    Ok(hosts)
}

fn report(args: &Args) -> String {
    let folder = args.folder.display();
    let Args {
        cluster,
        nodes,
        days,
        ..
    } = args;
    format!(
        "made in {folder}, valid for {days} days:

  ca.pem      the authority's certificate, which everybody trusts
  ca.key      its key, which nobody needs but who makes more certificates
  node-N.pem  the certificate of node N, from 1 to {nodes}: gorums://{cluster}/node/N
  node-N.key  its key
  client.pem  that of a client: gorums://{cluster}/client
  client.key  its key
  revoked.pem those that are revoked: none, until --revoke says so

node 1, with the feature `tls` of the crate gorums:

  let tls = Tls::builder()
      .trust(Pem::file(\"{folder}/ca.pem\"))
      .identity(Pem::file(\"{folder}/node-1.pem\"), Pem::file(\"{folder}/node-1.key\"))
      .client_certificates(ClientCertificates::Required)
      .build()?;
  Server::builder().transport(tls.clone())
  Configuration::builder().transport(tls)

These are for tests: the authority's key lies beside them, without a password.
docs/tls.md goes on from here.
"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(folder: &Path, more: &[&str]) -> Args {
        let folder = folder.to_str().expect("UTF-8");
        let line = ["certs", folder].into_iter().chain(more.iter().copied());
        Line::parse_from(line).args
    }

    #[test]
    fn nothing_is_overwritten_unless_it_is_asked_for() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let folder = folder.path().join("new");
        let report = make(&args(&folder, &["--nodes", "2"])).expect("nothing is there");
        assert!(report.contains("from 1 to 2"), "{report}");
        let mut names: Vec<_> = fs::read_dir(&folder)
            .expect("it was made")
            .map(|file| file.expect("it can be read").file_name())
            .collect();
        names.sort();
        let expected = [
            "ca.key",
            "ca.pem",
            "client.key",
            "client.pem",
            "node-1.key",
            "node-1.pem",
            "node-2.key",
            "node-2.pem",
            "revoked.pem",
        ];
        assert_eq!(names, expected);
        let read = || fs::read_to_string(folder.join("node-1.key")).expect("it was made");
        let before = read();
        let error = make(&args(&folder, &[])).expect_err("they are there");
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(read(), before);
        make(&args(&folder, &["--force"])).expect("it was asked for");
        assert_ne!(read(), before);
    }

    #[test]
    fn certificates_are_renewed_and_revoked_by_the_authority_that_is_there() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let folder = folder.path();
        let make = |more: &[&str]| make(&args(folder, more));
        let error = make(&["--renew"]).expect_err("nothing is there");
        assert!(error.to_string().contains("cargo xtask certs"), "{error}");
        make(&["--nodes", "2"]).expect("nothing is there");
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("it was made");
        let before = [
            "ca.pem",
            "ca.key",
            "node-1.pem",
            "node-1.key",
            "revoked.pem",
        ]
        .map(read);
        make(&["--renew", "--nodes", "2"]).expect("the authority is there");
        let after = [
            "ca.pem",
            "ca.key",
            "node-1.pem",
            "node-1.key",
            "revoked.pem",
        ]
        .map(read);
        let is_new: Vec<_> = (0..5).map(|at| before[at] != after[at]).collect();
        assert_eq!(is_new, [false, false, true, true, false]);
        let revoked = || listed(&folder.join(REVOKED)).expect("it was made").len();
        assert_eq!(revoked(), 0);
        make(&["--revoke", "1", "--revoke", "client"]).expect("they are there");
        assert_eq!(revoked(), 2);
        let error = make(&["--revoke", "1"]).expect_err("it is revoked");
        assert!(error.to_string().contains("--renew"), "{error}");
        make(&["--renew", "--nodes", "2"]).expect("the authority is there");
        make(&["--revoke", "1"]).expect("it is another one");
        assert_eq!(revoked(), 3);
        for whose in ["3", "nobody"] {
            make(&["--revoke", whose]).expect_err("it has none");
        }
        assert_eq!(revoked(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder for temporary files");
        make(&args(folder.path(), &[])).expect("nothing is there");
        let key = fs::metadata(folder.path().join("ca.key")).expect("it was made");
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        for more in [
            ["--cluster", "a/b"],
            ["--cluster", ""],
            ["--host", "a:80"],
            ["--host", ""],
        ] {
            make(&args(folder.path(), &more)).expect_err("it is no name");
        }
        let hosts = ["--host", "node.example", "--host", "10.0.0.7"];
        make(&args(folder.path(), &hosts)).expect("they are names");
    }
}
