"""May a trained version be registered?"""
