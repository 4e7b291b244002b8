//! A service as generated code makes them: `/cost.Echo/Get` answers a number with so many bytes.

use std::convert::Infallible;
use std::future::Ready;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic_prost::ProstCodec;

#[derive(Clone, Copy)]
pub struct Echo;

struct Get;

impl UnaryService<i64> for Get {
    type Response = Bytes;
    type Future = Ready<Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<i64>) -> Self::Future {
        static BYTES: [u8; 65_536] = [7; 65_536];
        let n = usize::try_from(request.into_inner()).unwrap_or_default().min(BYTES.len());
        std::future::ready(Ok(tonic::Response::new(Bytes::from_static(&BYTES[..n]))))
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "cost.Echo";
}

impl<B> tower::Service<Request<B>> for Echo
where
    B: http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError> + Send> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        async move { Ok(Grpc::new(ProstCodec::<Bytes, i64>::default()).unary(Get, request).await) }.boxed()
    }
}
