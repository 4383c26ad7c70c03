//! `cargo xtask certs`: an authority and certificates to try TLS out.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
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
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, GeneralName, X509Certificate, X509Name,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes an authority for tests, and certificates of it for nodes and a client.
///
/// The certificate of node 3 has the URI gorums://CLUSTER/node/3, the name localhost, the addresses
/// 127.0.0.1 and ::1, and the names that --host gives; servers and clients may use it, as a node is
/// both. The authority's key lies beside them, unprotected: for tests, and for nothing else.
///
/// With --renew or --revoke nothing but what they name is written, each file in one step, so that
/// programs that look at the files take them over. What --renew makes has the names of what was there:
/// whose certificates there are, of which cluster and with which hosts is not for it to say.
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

    /// Make the certificates that are there anew, with new keys, by the authority that is there, and the
    /// list of those that are revoked with new dates
    #[arg(long, conflicts_with_all = ["force", "nodes", "hosts", "cluster"])]
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

/// Whose a certificate is. It is shown as the name of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Authority,
    Node(u32),
    Client,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("ca"),
            Self::Node(id) => write!(f, "node-{id}"),
            Self::Client => f.write_str("client"),
        }
    }
}

/// A certificate with its key, as PEM.
struct Made {
    holder: Holder,
    certificate: String,
    key: String,
}

fn make(args: &Args) -> Result<String> {
    check_cluster(&args.cluster)?;
    if !args.revoke.is_empty() {
        return revoke(args);
    }
    if args.renew {
        return renew_all(args);
    }
    let (ca, authority) = new_authority(args)?;
    let list = list(args, &authority, Vec::new())?;
    let mut made = vec![ca];
    made.extend(issue_all(args, &authority)?);
    let files = files(&args.folder, &made, &list);
    if !args.force {
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
    write_all(files)?;
    Ok(report(args))
}

/// Makes anew what is there, with the names that it has.
fn renew_all(args: &Args) -> Result<String> {
    let folder = &args.folder;
    let (authority, name) = authority(folder)?;
    let list = list(args, &authority, listed(&folder.join(REVOKED), &name)?)?;
    let mut made = Vec::new();
    for holder in holders(folder)? {
        let path = folder.join(format!("{holder}.pem"));
        let names = names_of(&path, &name)?;
        made.push(issue(args, &authority, holder, names)?);
    }
    if made.is_empty() {
        bail!(
            "{} has no certificate to renew, neither node-N.pem nor client.pem: without --renew they are made",
            folder.display()
        );
    }
    let holders: Vec<_> = made.iter().map(|made| made.holder.to_string()).collect();
    write_all(files(folder, &made, &list))?;
    Ok(format!(
        "renewed in {}, valid for {} days: {}, and {REVOKED}\n",
        folder.display(),
        args.days,
        holders.join(", "),
    ))
}

/// A file, what it is to have, and whether that is a secret.
type File<'a> = (PathBuf, &'a str, bool);

fn files<'a>(folder: &Path, made: &'a [Made], list: &'a str) -> Vec<File<'a>> {
    let of = |made: &'a Made| {
        let file = |end: &str| folder.join(format!("{}.{end}", made.holder));
        [
            (file("pem"), made.certificate.as_str(), false),
            (file("key"), made.key.as_str(), true),
        ]
    };
    let mut files: Vec<_> = made.iter().flat_map(of).collect();
    files.push((folder.join(REVOKED), list, false));
    files
}

fn write_all(files: Vec<File<'_>>) -> Result<()> {
    for (path, text, is_secret) in files {
        write(&path, text, is_secret).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The list of those that are revoked.
const REVOKED: &str = "revoked.pem";

/// Adds certificates to the list.
fn revoke(args: &Args) -> Result<String> {
    let (authority, name) = authority(&args.folder)?;
    let path = args.folder.join(REVOKED);
    let mut revoked = listed(&path, &name)?;
    for whose in &args.revoke {
        let holder = match whose.parse::<u32>() {
            Ok(id) => Holder::Node(id),
            Err(_) if whose == "client" => Holder::Client,
            Err(_) => bail!("{whose:?} has no certificate: give the id of a node, or client"),
        };
        let serial = serial(&args.folder.join(format!("{holder}.pem")), &name)?;
        if revoked.iter().any(|one| one.serial_number == serial) {
            bail!("the certificate in {holder}.pem is revoked already: --renew makes another one");
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

/// The authority that has made what is in the folder, and its name.
fn authority(folder: &Path) -> Result<(Issuer<'static, KeyPair>, Name)> {
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
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, key);
    let issuer = issuer.context("ca.pem is that of no authority")?;
    let subject = |certificate: &X509Certificate<'_>| Ok(Name::of(certificate.subject()));
    let name = with_certificate(&folder.join("ca.pem"), subject)?;
    Ok((issuer, name))
}

/// The name of an authority, as it is encoded: no two have the same one.
#[derive(PartialEq, Eq)]
struct Name(Vec<u8>);

impl Name {
    fn of(name: &X509Name<'_>) -> Self {
        Self(name.as_raw().to_vec())
    }

    /// Fails unless what a file has was made by the authority of this name. Otherwise what another one
    /// has made would be passed off as made by this one, in the middle of a change of authorities, say.
    fn check(&self, issuer: &X509Name<'_>, path: &Path) -> Result<()> {
        if Self::of(issuer) != *self {
            bail!(
                "{} was not made by the authority in ca.pem, but by {issuer}: put the files of one authority together",
                path.display()
            );
        }
        Ok(())
    }
}

/// Whose certificates the folder has, beside that of the authority.
fn holders(folder: &Path) -> Result<Vec<Holder>> {
    let mut holders = Vec::new();
    let reading = || format!("reading {}", folder.display());
    for file in fs::read_dir(folder).with_context(reading)? {
        let name = file.with_context(reading)?.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".pem")) else {
            continue;
        };
        let holder = match stem.strip_prefix("node-").map(str::parse) {
            Some(Ok(id)) => Holder::Node(id),
            None if stem == "client" => Holder::Client,
            _ => continue,
        };
        // No other spelling of the number.
        if holder.to_string() == stem {
            holders.push(holder);
        }
    }
    holders.sort_unstable();
    Ok(holders)
}

fn with_certificate<T>(
    path: &Path,
    of: impl FnOnce(&X509Certificate<'_>) -> Result<T>,
) -> Result<T> {
    let name = path.display();
    let text = fs::read(path).with_context(|| format!("reading {name}"))?;
    let (_, pem) = parse_x509_pem(&text).map_err(|error| anyhow!("{name} is not PEM: {error}"))?;
    let certificate = pem.parse_x509();
    of(&certificate.map_err(|error| anyhow!("{name} has no certificate: {error}"))?)
}

/// The serial number of a certificate of this authority.
fn serial(path: &Path, authority: &Name) -> Result<SerialNumber> {
    with_certificate(path, |certificate| {
        authority.check(certificate.issuer(), path)?;
        Ok(SerialNumber::from(certificate.raw_serial().to_vec()))
    })
}

/// The names that a certificate of this authority has.
fn names_of(path: &Path, authority: &Name) -> Result<Vec<SanType>> {
    with_certificate(path, |certificate| {
        authority.check(certificate.issuer(), path)?;
        let names = certificate.subject_alternative_name();
        let names = names.map_err(|error| anyhow!("the names in {}: {error}", path.display()))?;
        let Some(names) = names else {
            return Ok(Vec::new());
        };
        let name = |name: &GeneralName<'_>| {
            Ok(match *name {
                GeneralName::DNSName(name) => SanType::DnsName(name.try_into()?),
                GeneralName::URI(uri) => SanType::URI(uri.try_into()?),
                GeneralName::IPAddress(octets) => SanType::IpAddress(address(octets)?),
                _ => bail!(
                    "{} has the name {name}, which is of a kind that this command does not make",
                    path.display()
                ),
            })
        };
        names.value.general_names.iter().map(name).collect()
    })
}

fn address(octets: &[u8]) -> Result<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(octets.into());
    }
    let octets = <[u8; 16]>::try_from(octets);
    Ok(octets.context("an IP address has 4 octets, or 16")?.into())
}

/// Those that a list of this authority has: none where there is no list.
fn listed(path: &Path, authority: &Name) -> Result<Vec<RevokedCertParams>> {
    let name = path.display();
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {name}")),
    };
    let (_, pem) = parse_x509_pem(&text).map_err(|error| anyhow!("{name} is not PEM: {error}"))?;
    let list = CertificateRevocationList::from_der(&pem.contents);
    let (_, list) = list.map_err(|error| anyhow!("{name} has no list: {error}"))?;
    authority.check(list.issuer(), path)?;
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
        holder: Holder::Authority,
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    };
    Ok((made, Issuer::new(params, key)))
}

/// The certificates of the nodes and of the client.
fn issue_all(args: &Args, authority: &Issuer<'_, KeyPair>) -> Result<Vec<Made>> {
    let mut made = Vec::new();
    for id in 1..=args.nodes {
        let mut names = hosts(&args.hosts)?;
        names.push(uri(args, &format!("node/{id}"))?);
        made.push(issue(args, authority, Holder::Node(id), names)?);
    }
    let names = vec![uri(args, "client")?];
    made.push(issue(args, authority, Holder::Client, names)?);
    Ok(made)
}

fn uri(args: &Args, whose: &str) -> Result<SanType> {
    let uri = format!("gorums://{}/{whose}", args.cluster);
    Ok(SanType::URI(uri.try_into()?))
}

fn issue(
    args: &Args,
    authority: &Issuer<'_, KeyPair>,
    holder: Holder,
    names: Vec<SanType>,
) -> Result<Made> {
    let mut params = params(args, &holder.to_string());
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if let Holder::Node(_) = holder {
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        params.extended_key_usages.push(server);
    }
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok(Made {
        certificate: params.signed_by(&key, authority)?.pem(),
        key: key.serialize_pem(),
        holder,
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
        let names = [
            "ca.pem",
            "ca.key",
            "node-1.pem",
            "node-1.key",
            "node-2.pem",
            "client.pem",
            "client.key",
        ];
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("it was made");
        let before = names.map(read);
        let report = make(&["--renew"]).expect("the authority is there");
        let renewed = "node-1, node-2, client, and revoked.pem";
        assert!(report.contains(renewed), "{report}");
        let after = names.map(read);
        let is_new: Vec<_> = (0..7).map(|at| before[at] != after[at]).collect();
        assert_eq!(is_new, [false, false, true, true, true, true, true]);
        assert!(!folder.join("node-3.pem").exists());

        let revoked = || {
            let (_, name) = authority(folder).expect("it was made");
            let listed = listed(&folder.join(REVOKED), &name).expect("it was made");
            let serials = listed.into_iter().map(|one| one.serial_number.to_bytes());
            serials.collect::<Vec<_>>()
        };
        assert!(revoked().is_empty());
        make(&["--revoke", "1", "--revoke", "client"]).expect("they are there");
        let two = revoked();
        assert_eq!(two.len(), 2);
        let error = make(&["--revoke", "1"]).expect_err("it is revoked");
        assert!(error.to_string().contains("--renew"), "{error}");
        let before = read(REVOKED);
        make(&["--renew", "--days", "60"]).expect("the authority is there");
        assert_ne!(read(REVOKED), before);
        assert_eq!(revoked(), two);
        make(&["--revoke", "1"]).expect("it is another one");
        assert_eq!(revoked().len(), 3);
        for whose in ["3", "nobody"] {
            make(&["--revoke", whose]).expect_err("it has none");
        }
        assert_eq!(revoked().len(), 3);
        // A folder of before there was a list.
        fs::remove_file(folder.join(REVOKED)).expect("it was made");
        make(&["--renew"]).expect("there is no list");
        assert!(revoked().is_empty());
    }

    #[test]
    fn what_is_renewed_has_the_names_that_it_had() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let folder = folder.path();
        let more = [
            "--cluster",
            "prod",
            "--nodes",
            "2",
            "--host",
            "node.example",
            "--host",
            "10.0.0.7",
        ];
        make(&args(folder, &more)).expect("nothing is there");
        let (_, name) = authority(folder).expect("it was made");
        let names = || {
            ["node-1", "node-2", "client"]
                .map(|holder| names_of(&folder.join(format!("{holder}.pem")), &name))
                .map(|names| names.expect("it was made"))
        };
        let before = names();
        assert_eq!(before[0].len(), 6);
        make(&args(folder, &["--renew"])).expect("the authority is there");
        assert_eq!(names(), before);
        for option in [["--cluster", "test"], ["--nodes", "3"], ["--host", "here"]] {
            let line = ["certs", "folder", "--renew"].into_iter().chain(option);
            assert!(Line::try_parse_from(line).is_err(), "{option:?}");
        }
    }

    #[test]
    fn nothing_of_another_authority_is_renewed_or_revoked() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let [mine, other] = ["mine", "other"].map(|name| folder.path().join(name));
        make(&args(&mine, &[])).expect("nothing is there");
        make(&args(&other, &[])).expect("nothing is there");
        let take = |name: &str| fs::copy(other.join(name), mine.join(name)).expect("it was made");
        take("node-2.pem");
        let read = || fs::read_to_string(mine.join("node-1.pem")).expect("it was made");
        let before = read();
        for more in [&["--renew"] as &[_], &["--revoke", "2"]] {
            let error = make(&args(&mine, more)).expect_err("it is of another authority");
            let text = error.to_string();
            let says = ["node-2.pem", "was not made by the authority in ca.pem"];
            assert!(says.iter().all(|says| text.contains(says)), "{text}");
        }
        take(REVOKED);
        let error = make(&args(&mine, &["--revoke", "1"])).expect_err("so is the list");
        assert!(error.to_string().contains(REVOKED), "{error}");
        assert_eq!(read(), before);
        for name in ["node-1.pem", "node-2.pem", "node-3.pem", "client.pem"] {
            fs::remove_file(mine.join(name)).expect("it was made");
        }
        fs::remove_file(mine.join(REVOKED)).expect("it was made");
        let error = make(&args(&mine, &["--renew"])).expect_err("there is nothing left");
        assert!(
            error.to_string().contains("no certificate to renew"),
            "{error}"
        );
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
