"""Run exported TinyLLaVA bundles on small machines and answer over MQTT."""
