"""Binance's public market data, spot and USDⓈ-M futures: what stands in while Bitget is dark."""
