//! Server reflection, in both versions: tools still differ in which they speak.

use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic_reflection::server::{Builder, Error};

/// Adds reflection of these services, and of health, to a server's routes.
pub fn with_reflection(
    routes: Routes,
    descriptors: &'static [u8],
    service_names: &[&'static str],
) -> Result<Routes, Error> {
    with_guarded_reflection(routes, descriptors, service_names, Ok)
}

/// The same for those whose requests `guard` lets pass.
pub fn with_guarded_reflection(
    routes: Routes,
    descriptors: &'static [u8],
    service_names: &[&'static str],
    guard: impl Interceptor + Clone + Send + Sync + 'static,
) -> Result<Routes, Error> {
    let builder = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        service_names.iter().fold(builder, |builder, name| builder.with_service_name(*name))
    };
    let v1 = InterceptedService::new(builder().build_v1()?, guard.clone());
    let v1alpha = InterceptedService::new(builder().build_v1alpha()?, guard);
    Ok(routes.add_service(v1).add_service(v1alpha))
}
