//! The networks of the other tests part and heal as they say.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use liaison_demo::{http, port::Port, wait};
use liaison_tests::net::{Host, Net};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

const PORT: u16 = 7402;

#[tokio::test]
async fn hosts_are_parted_whole_and_one_way_and_healed() -> Result<()> {
    let net = Net::new()?;
    let (one, two, three) = (net.host()?, net.host()?, net.host()?);
    for host in [&one, &two, &three] {
        listen(host).await?;
    }
    for (from, to) in [(&one, &two), (&two, &one), (&one, &three), (&three, &two)] {
        connects(from, to).await?;
    }

    one.cut()?;
    assert!(!reaches(&one, &two).await && !reaches(&two, &one).await && !reaches(&three, &one).await);
    assert!(reaches(&two, &three).await, "a cut between others");
    one.join()?;
    connects(&one, &two).await?;
    connects(&two, &one).await?;

    // One way: datagrams tell the ways apart.
    one.mute_towards(&two)?;
    let (here, there) = (mailbox(&one).await?, mailbox(&two).await?);
    let send = async |socket: &UdpSocket, host: &Host| {
        // A way that is cut is told to its sender at once.
        let _ = socket.send_to(b"word", (host.address, PORT)).await;
    };
    send(&there, &one).await;
    assert!(arrives(&here).await, "nothing arrives the way that is open");
    send(&here, &two).await;
    assert!(!arrives(&there).await, "something arrives the way that is cut");
    assert!(!reaches(&one, &two).await && !reaches(&two, &one).await, "a connection needs both ways");
    assert!(reaches(&one, &three).await && reaches(&three, &one).await, "the third is cut as well");
    one.unmute_towards(&two)?;
    connects(&one, &two).await?;
    connects(&two, &one).await?;
    send(&here, &two).await;
    assert!(arrives(&there).await);
    Ok(())
}

#[tokio::test]
async fn a_loopback_port_of_a_host_is_reached_from_outside() -> Result<()> {
    let net = Net::new()?;
    let host = net.host()?;
    let port = Port::free()?;
    let window = host.open(port.address).await?;
    let alone = http::request(port.address, "GET", "/", &[], &[]).await;
    assert!(alone.is_err(), "nobody listens inside, and something answers");

    let address = port.address;
    let listener = host.inside(move || listener(address)).await?;
    let listener = TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\ninside").await;
        }
    });
    let answer = http::request(port.address, "GET", "/", &[], &[]).await?;
    assert_eq!(answer.text(), "inside");
    drop(window);
    wait::until("the window is closed", async || {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await
}

#[tokio::test]
async fn a_program_runs_inside_under_its_own_id() -> Result<()> {
    let net = Net::new()?;
    let host = net.host()?;
    let folder = tempfile::tempdir()?;
    let ip = host.program("/bin/sh".as_ref(), folder.path())?;
    let script = "echo $$; ip -o -4 addr";
    let child =
        std::process::Command::new(ip).args(["-c", script]).stdout(std::process::Stdio::piped()).spawn()?;
    let id = child.id();
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.lines().next() == Some(id.to_string().as_str()), "another process: {text}");
    ensure!(text.contains(&format!("{}/24", host.address)), "another network: {text}");
    Ok(())
}

async fn reaches(from: &Host, to: &Host) -> bool {
    from.connect((to.address, PORT).into()).await.is_ok()
}

/// A link that comes up needs a moment.
async fn connects(from: &Host, to: &Host) -> Result<()> {
    wait::until("one host reaches another", async || reaches(from, to).await.then_some(())).await
}

/// Accepts connections on a host's address as long as the test runs.
async fn listen(host: &Host) -> Result<()> {
    let address = (host.address, PORT).into();
    let listener = TcpListener::from_std(host.inside(move || listener(address)).await?)?;
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    Ok(())
}

fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn mailbox(host: &Host) -> Result<Arc<UdpSocket>> {
    let address: SocketAddr = (host.address, PORT).into();
    let socket = host
        .inside(move || {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .await?;
    Ok(Arc::new(UdpSocket::from_std(socket)?))
}

async fn arrives(at: &UdpSocket) -> bool {
    let mut word = [0; 16];
    let received = tokio::time::timeout(Duration::from_millis(500), at.recv(&mut word)).await;
    received.is_ok_and(|received| received.is_ok())
}
