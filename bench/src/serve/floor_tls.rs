//! The floor over TLS: a task for each connection on a watch channel, and rustls below it. No protocol.

use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{Lists, Serve, follow, listen, ready};
use crate::failure::{Doing, Failure, Outcome};
use crate::serve::Certificate;

/// Serves until it is killed, or the bench goes.
pub(super) fn run(serve: &Serve) -> Outcome<()> {
    let folder = serve.tls.as_ref().ok_or_else(|| Failure::new("floor-tls needs --tls"))?;
    let acceptor = TlsAcceptor::from(Arc::new(Certificate::load(folder)?.server_config(&[])?));
    let runtime = tokio::runtime::Runtime::new().doing("start the runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen(serve.listen)?).doing("listen")?;
        let lists = Lists::bind(serve)?;
        ready()?;
        let (first, stream) = lists.first().await?;
        let (lists_tx, lists_rx) = watch::channel(frame(first));
        tokio::spawn(accept(listener, acceptor, lists_rx));
        follow(stream, lists_tx, frame).await;
        Ok(())
    })
}

fn frame(message: Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(4 + message.len());
    frame.put_u32(u32::try_from(message.len()).expect("a message is shorter than 4 GiB"));
    frame.put(message);
    frame.freeze()
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, lists_rx: watch::Receiver<Bytes>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, lists_rx) = (acceptor.clone(), lists_rx.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // A client that goes ends its own task, and nothing else.
            let _ = push(stream, &acceptor, lists_rx).await;
        });
    }
}

async fn push(
    stream: tokio::net::TcpStream,
    acceptor: &TlsAcceptor,
    mut lists_rx: watch::Receiver<Bytes>,
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    lists_rx.mark_changed();
    let mut word = [0; 16];
    loop {
        tokio::select! {
            changed = lists_rx.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let list = lists_rx.borrow_and_update().clone();
                stream.write_all(&list).await?;
                stream.flush().await?;
            }
            count = stream.read(&mut word) => {
                if count? == 0 {
                    return Ok(());
                }
            }
        }
    }
}
