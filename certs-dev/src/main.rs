//! `liaison-certs-dev`: certificates for development and tests.

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, error::ErrorKind};
use liaison_certs_dev::{Bad, Plan, make};
use liaison_trust::names::Domain;

/// Makes a development domain: its authority, its gateway's certificate, its agencies' certificates.
///
/// Never use what it makes for real: the authority's key lies beside the certificates, and they live for
/// 30 days instead of one. A real domain is made by `liaison-gateway init`, and a real agency enrols with
/// `liaison-agent enroll`.
///
/// The folder afterwards:
///
///   ca.pem, ca.key             the domain's root
///   crl.pem                    its revocation list
///   gateway.pem, gateway.key   the gateway's certificate, then the root
///   agencies/NAME.pem, .key    one of each agency
///   bad/KIND.pem, .key         deliberately bad certificates of the first agency: each has its one fault
///                              and no other
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// The folder to make; it must be missing or empty.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The domain's name, such as `be`.
    #[arg(long, value_name = "DOMAIN")]
    domain: Domain,
    /// The name of an agency inside the domain, such as `shelter-antwerp`; may be repeated.
    #[arg(long = "agency", value_name = "NAME", required = true)]
    agencies: Vec<String>,
    /// A DNS name or IP address at which the gateway is called; may be repeated.
    #[arg(long = "gateway-name", value_name = "HOST", default_values = ["localhost", "127.0.0.1", "::1"])]
    hosts: Vec<String>,
    /// A kind of bad certificate to make as well; may be repeated.
    #[arg(long, value_name = "KIND")]
    bad: Vec<Bad>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let domain = arguments.domain;
    let address = |name: &String| format!("{domain}/{name}").parse();
    let agencies = match arguments.agencies.iter().map(address).collect() {
        Ok(agencies) => agencies,
        Err(error) => {
            let message = format!("invalid value for '--agency <NAME>': {error}");
            Arguments::command().error(ErrorKind::ValueValidation, message).exit()
        }
    };
    let plan = Plan { domain, agencies, hosts: arguments.hosts, bad: arguments.bad };
    match make(&arguments.folder, &plan) {
        Ok(made) => {
            let width = made.iter().map(|made| made.file.len()).max().unwrap_or(0);
            println!("{:width$}  CONTENT", "FILE");
            for made in made {
                println!("{:width$}  {}", made.file, made.content);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
