//! A site's own certificates: an authority, and what it signs for daemons and their clients.
//!
//! The authority is a key and what follows from it, so that nothing has to be read back out of its
//! certificate. Each certificate made has a directory that holds all its side needs.

use super::door::Trouble;
use super::output::Output;
use clap::Subcommand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use serde_json::json;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Clocks of a site may differ by so much.
const BACKDATED: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an authority lasts, days.
const CA_DAYS: u32 = 3650;

/// What to make.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Make the site's authority: ca.pem for everyone, ca.key to keep secret
    Ca(Place),
    /// Make a directory of keys for a daemon's gateway.tls
    Server {
        /// Names and addresses that clients connect to; the first names the directory
        #[arg(required = true, value_name = "HOST")]
        names: Vec<String>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Make a directory of keys for a client: --connect tls:DIR@HOST:PORT
    Client {
        /// Name that an [[access]] of vendued's configuration grants something
        #[arg(value_name = "NAME", value_parser = parse_client)]
        name: String,
        #[command(flatten)]
        terms: Terms,
    },
}

/// Where the authority is.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// Directory of the site's authority
    #[arg(long, value_name = "DIR", default_value = "pki")]
    dir: PathBuf,
}

/// Of a signed certificate.
#[derive(Debug, clap::Args)]
pub struct Terms {
    #[command(flatten)]
    place: Place,
    /// Days that it is good for
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=CA_DAYS as i64))]
    days: u32,
}

/// A client's name, which its certificate holds as a DNS name.
fn parse_client(name: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.parse::<IpAddr>().is_err() && name.len() <= 253 && name.split('.').all(label) {
        return Ok(name.to_owned());
    }
    Err("a name is made of a-z, 0-9, - and ., and is no address".to_owned())
}

/// Runs the command.
pub fn run(command: &PkiCommand, out: &mut Output) -> Result<(), Trouble> {
    match command {
        PkiCommand::Ca(Place { dir }) => make_ca(dir, out),
        PkiCommand::Server { names, terms } => {
            let usage = ExtendedKeyUsagePurpose::ServerAuth;
            let dir = sign(names, usage, terms)?;
            let object = json!({ "dir": dir, "names": names });
            let text = format!(
                "{0} holds what a daemon reached as {1} needs; in vendued.toml:\n  [gateway]\n  \
                 tls = {{ address = \"0.0.0.0:7412\", dir = \"{0}\" }}",
                dir.display(),
                names.join(" or ")
            );
            Ok(out.say(&object, &text)?)
        }
        PkiCommand::Client { name, terms } => {
            let usage = ExtendedKeyUsagePurpose::ClientAuth;
            let dir = sign(std::slice::from_ref(name), usage, terms)?;
            let object = json!({ "dir": dir, "name": name });
            let text = format!(
                "{0} holds what {name} needs: hvctl --connect tls:{0}@HOST:PORT\nin vendued.toml, \
                 with what {name} may be:\n  [[access]]\n  certificate = \"{name}\"\n  role = \
                 \"tenant\"\n  account = 0",
                dir.display()
            );
            Ok(out.say(&object, &text)?)
        }
    }
}

fn make_ca(dir: &Path, out: &mut Output) -> Result<(), Trouble> {
    let key = KeyPair::generate().map_err(crypto)?;
    let mut params = authority(&key);
    limit(&mut params, CA_DAYS);
    let certificate = params.self_signed(&key).map_err(crypto)?;
    std::fs::create_dir_all(dir).map_err(|error| host("make", dir, &error))?;
    write(&dir.join("ca.key"), &key.serialize_pem(), 0o600)?;
    write(&dir.join("ca.pem"), &certificate.pem(), 0o644)?;
    let object = json!({ "ca": dir.join("ca.pem"), "key": dir.join("ca.key") });
    let text = format!(
        "{0}/ca.key signs for this site: keep it where only you can read it\nnext: hvctl pki \
         server HOST... and hvctl pki client NAME",
        dir.display()
    );
    Ok(out.say(&object, &text)?)
}

/// All that the authority with this key is, but for its dates.
fn authority(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Of two authorities a peer must be able to tell which one it lacks.
    let id = params.key_identifier(key);
    let id: String = id.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = common_name(&format!("Vendue CA {id}"));
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn limit(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + DAY * days;
}

/// Makes a key and a certificate of these names, and a directory for them.
fn sign(
    names: &[String],
    usage: ExtendedKeyUsagePurpose,
    terms: &Terms,
) -> Result<PathBuf, Trouble> {
    let site = &terms.place.dir;
    let read = |name: &str| {
        std::fs::read_to_string(site.join(name)).map_err(|error| {
            let path = site.join(name);
            Trouble::Host(format!(
                "cannot read {}: {error}; `hvctl pki ca` makes a site's authority",
                path.display()
            ))
        })
    };
    let (ca_pem, ca_key) = (read("ca.pem")?, read("ca.key")?);
    let ca_key = KeyPair::from_pem(&ca_key)
        .map_err(|error| Trouble::Host(format!("{}/ca.key: {error}", site.display())))?;
    let mut params = CertificateParams::new(names)
        .map_err(|error| Trouble::Usage(format!("{}: {error}", names.join(" "))))?;
    params.distinguished_name = common_name(&names[0]);
    limit(&mut params, terms.days);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(crypto)?;
    let issuer = Issuer::new(authority(&ca_key), ca_key);
    let certificate = params.signed_by(&key, &issuer).map_err(crypto)?;

    let dir = site.join(&names[0]);
    DirBuilder::new().create(&dir).map_err(|error| host("make", &dir, &error))?;
    write(&dir.join("ca.pem"), &ca_pem, 0o644)?;
    write(&dir.join("cert.pem"), &certificate.pem(), 0o644)?;
    write(&dir.join("key.pem"), &key.serialize_pem(), 0o600)?;
    Ok(dir)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Trouble> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| host("make", path, &error))
}

fn host(what: &str, path: &Path, error: &std::io::Error) -> Trouble {
    let hint = match error.kind() {
        std::io::ErrorKind::AlreadyExists => "; move it away to make a new one",
        _ => "",
    };
    Trouble::Host(format!("cannot {what} {}: {error}{hint}", path.display()))
}

fn crypto(error: rcgen::Error) -> Trouble {
    Trouble::Host(format!("cannot make a certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_name_is_a_dns_name() {
        for right in ["alice", "a-1.site", "7"] {
            assert_eq!(parse_client(right).as_deref(), Ok(right));
        }
        for wrong in ["", "Alice", "a_b", "a..b", "-a", "a-", "10.0.0.1", "::1", "a/b", ".."] {
            assert!(parse_client(wrong).is_err(), "{wrong:?}");
        }
    }
}
