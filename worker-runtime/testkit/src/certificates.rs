//! A private certificate authority and one certificate, made by openssl for one broker, store or server, or for a client.
//! Nothing of it outlives its folder.

use std::io;
use std::path::Path;
use tokio::process::Command;

/// Makes `ca.pem`, `server.pem` and `server.key` in `folder`; the certificate names `localhost` and 127.0.0.1.
pub async fn make(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(
        folder.join("names"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n",
    )?;
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let authority = [
        "req",
        "-x509",
        "-subj",
        "/CN=private authority",
        "-days",
        "2",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    ];
    openssl(folder, &[&authority[..], &key[..]].concat()).await?;
    let request = [
        "req",
        "-subj",
        "/CN=localhost",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ];
    openssl(folder, &[&request[..], &key[..]].concat()).await?;
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            "server.pem",
        ],
    )
    .await
}

async fn openssl(folder: &Path, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("openssl cannot be started: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "openssl {} failed: {}",
        arguments[0],
        String::from_utf8_lossy(&output.stderr)
    )))
}
