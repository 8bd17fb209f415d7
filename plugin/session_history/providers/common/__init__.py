"""Parts that several providers share. They stand on the contract and know no provider."""
